"""What a run tells while it goes on: a JSON line at a time, and TensorBoard beside it where asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from .run_files import write_whole


class RunLog:
    """A file of JSON lines, each with a `step`.

    Args:
        path: of the file; None keeps nothing.
        tensorboard: folder of TensorBoard's event files; None for none.

    Raises:
        ConfigError: TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path | None, tensorboard: Path | None = None) -> None:
        self._path = path
        self._start: Any = None if tensorboard is None else partial(_summary_writer(), str(tensorboard))
        self._writer: Any = None

    def rewind(self, step: int) -> None:
        """Forget what was written after `step`, from where a run goes on, and a last line cut short."""
        if self._start is not None:
            self._writer = self._start(purge_step=step + 1)
        if self._path is None or not self._path.exists():
            return
        kept: list[str] = []
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] > step:
                    break
            except (ValueError, KeyError, TypeError):
                break
            kept.append(line + "\n")
        write_whole(self._path, "".join(kept).encode())

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add what is known at `step`."""
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        if self._start is not None:
            self._writer = self._writer or self._start()
            for name, value in values.items():
                self._writer.add_scalar(name.replace(".", "/"), value, step)
            self._writer.flush()


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard: true needs TensorBoard: pip install 'anyseek[train]', or leave it out; the JSON "
            "lines hold the same numbers."
        ) from error
    return SummaryWriter
