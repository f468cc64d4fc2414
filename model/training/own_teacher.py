"""A teacher of your own on disk: `teacher.safetensors`, its shape in the file's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from ...errors import CheckpointError, ConfigError
from ..tensor_file import TensorFile
from .run_files import parse_run, write_whole
from .teacher_networks import Tower, TowerConfig

TEACHER = "teacher.safetensors"
_BATCH = 32


def save_teacher(tower: Tower, config: TowerConfig, path: Path) -> None:
    """Write the tower of pictures and its shape."""
    state = {name: value.detach().cpu().contiguous() for name, value in tower.state_dict().items()}
    write_whole(path, save(state, {"tower": config.model_dump_json()}))


def load_own_teacher(path: Path, device: torch.device | str = "cpu") -> tuple[Tower, TowerConfig]:
    """Open what `save_teacher` wrote.

    Raises:
        CheckpointError: another file, or not exactly the tensors of its shape.
    """
    file = TensorFile(path)
    try:
        values = json.loads(file.metadata["tower"])
        config = parse_run(values, TowerConfig, where=str(path))
    except (KeyError, ValueError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path} is no teacher: its metadata name no tower ({error}).") from error
    if config.problem():
        raise CheckpointError(f"{path}: {config.problem()}.")
    tower = Tower(config)
    expected = tower.state_dict()
    wrong = sorted(expected.keys() ^ set(file.tensors))
    wrong += [
        name for name in expected if name in file.tensors and file.tensors[name].shape != expected[name].shape
    ]
    if wrong:
        raise CheckpointError(f"{path} does not hold the tensors of its tower: {wrong[0]!r} differs.")
    tower.load_state_dict({name: file.read(name) for name in expected})
    return tower.eval().to(device), config


@torch.inference_mode()
def look_at(
    tower: Tower, images: NDArray[np.uint8]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Of each picture uint8 (N, S, S, 3): its vector (C,) and its features (C, rows, columns)."""
    device = next(tower.parameters()).device
    for start in range(0, len(images), _BATCH):
        part = torch.from_numpy(np.array(images[start : start + _BATCH])).to(device)
        vectors, grids = tower(part.permute(0, 3, 1, 2).float() / 127.5 - 1)
        yield from zip(
            vectors.cpu().numpy(), grids.permute(0, 3, 1, 2).contiguous().cpu().numpy(), strict=True
        )
