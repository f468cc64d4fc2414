"""Which files of a folder hold one modality: `depth/0001.png` or `0001.depth.png`, at any depth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import InputError
from ..modalities import RAW_NAMES
from ..side_files import SIDE_FILES


def modality_files(folder: Path, raw: str) -> dict[str, Path]:
    """Find the files of one modality.

    Args:
        folder: with a folder of the modality's name, or with files side by side, whose names end in the
            modality and the extension; RGB needs no ending.
        raw: the user's name of the modality, one of SIDE_FILES.

    Returns:
        Files by item (path below `folder` without endings), in the order of their names.

    Raises:
        InputError: no such folder, or nothing of the modality in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder.")
    in_layout = (folder / raw).is_dir()
    found = _layout_files(folder / raw, raw) if in_layout else _side_files(folder, raw)
    ranked = sorted(found, key=lambda pair: (pair[0], -SIDE_FILES[raw].index(pair[1].suffix.lower())))
    if not ranked:
        raise InputError(
            f"{folder} holds no {raw}. Expected {raw}/0001{SIDE_FILES[raw][0]}, ... or "
            f"0001.{raw}{SIDE_FILES[raw][0]}, ...; extensions are {', '.join(SIDE_FILES[raw])}."
        )
    return dict(ranked)


def _layout_files(folder: Path, raw: str) -> Iterator[tuple[str, Path]]:
    for path in _visible(folder):
        if path.suffix.lower() in SIDE_FILES[raw]:
            yield path.relative_to(folder).with_suffix("").as_posix(), path


def _side_files(folder: Path, raw: str) -> Iterator[tuple[str, Path]]:
    for path in _visible(folder):
        if path.suffix.lower() not in SIDE_FILES[raw]:
            continue
        item = path.relative_to(folder).with_suffix("")
        ending = item.suffix[1:].lower()
        if ending == raw:
            yield item.with_suffix("").as_posix(), path
        elif raw == "rgb" and ending not in RAW_NAMES:
            yield item.as_posix(), path


def _visible(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file():
            yield path
