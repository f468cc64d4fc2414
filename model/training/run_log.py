"""What a run says on its way: JSON lines always, TensorBoard beside them when asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ConfigError


class RunLog:
    """Appends entries to a file.

    Args:
        path: of the JSON lines.
        tensorboard: folder of TensorBoard's events; None for none.

    Raises:
        ConfigError: TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, tensorboard: Path | None = None) -> None:
        self._path = path
        self._writer = None if tensorboard is None else _summary_writer(tensorboard)

    def rewind(self, step: int) -> None:
        """Drop entries after a step, and a line that was torn: the run goes on from there."""
        if not self._path.exists():
            return
        kept: list[str] = []
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(self._path)

    def write(self, entry: Mapping[str, float | str]) -> None:
        """Add an entry, which has a `step`."""
        with self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        if self._writer is not None:
            for name, value in entry.items():
                if name != "step" and not isinstance(value, str):
                    self._writer.add_scalar(name.replace(".", "/", 1), value, int(entry["step"]))
            self._writer.flush()


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard: true needs TensorBoard: pip install 'anyseek[train]', or leave it out; the JSON "
            "lines hold the same numbers."
        ) from error
    return SummaryWriter(str(folder))
