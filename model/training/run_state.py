"""The state of a run, from which it goes on: written whole, read without running code that it may hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError
from .run_files import whole_file


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values; the file has its name only when all of it is on disk."""
    with whole_file(path) as file:
        torch.save(dict(state), file)


def read_state(path: Path, device: torch.device | str) -> dict[str, Any]:
    """What `write_state` wrote, tensors on `device`. Raises ConfigError where the file is something else."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # of many kinds, from a damaged archive
        raise ConfigError(
            f"{path} is no training state ({type(error).__name__}); remove it to start anew."
        ) from error
