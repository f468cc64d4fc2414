"""Whether a map shows the same view as the photo that it comes with."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..images import picture_size
from .arrays import is_numpy, read_array
from .content import Content

MAPS = frozenset({"depth", "normal", "semseg", "canny_edge", "sam_edge"})
"""Modalities whose pixels lie over those of a photo."""

_SLACK = 0.03  # of the proportions: networks give maps in multiples of their patches
_MAX_BYTES = 2**28


def check_same_view(modality: str, content: Content, photo: Content) -> None:
    """Refuse a map whose pixels cannot lie over those of the photo of the same item.

    Args:
        modality: the user's name; what is no map passes.
        content: the map: file, bytes or array, also with its legend.
        photo: likewise.

    Raises:
        InputError: the map has other proportions, and is no square, as maps of the central square are.
    """
    if modality not in MAPS:
        return
    size, photo_size = _size(content), _size(photo)
    if size is None or photo_size is None:  # their readers say what is wrong
        return
    (width, height), (photo_width, photo_height) = size, photo_size
    ratio = width * photo_height / (height * photo_width)
    if width == height or abs(ratio - 1) <= max(_SLACK, 1 / min(width, height)):
        return
    name = str(content) if isinstance(content, Path) else modality
    raise InputError(
        f"{name}: {width} x {height} pixels, but the photo has {photo_width} x {photo_height}; give a map of "
        "the photo's proportions, or of its central square."
    )


def _size(content: Content) -> tuple[int, int] | None:
    """Width and height, from the header where it has one; None where they are not known."""
    if isinstance(content, Mapping):  # with a legend
        content = content.get("map", b"")
    if isinstance(content, np.ndarray):
        return _of_shape(content.shape)
    try:
        if isinstance(content, bytes):
            file = io.BytesIO(content)
        elif isinstance(content, Path) and content.is_file():
            file = content.open("rb")
        else:
            return None
        with file:
            if not is_numpy(file.read(8)):
                file.seek(0)
                return picture_size(file)
        return _of_shape(read_array(content, name="", max_bytes=_MAX_BYTES).shape)
    except (InputError, OSError):
        return None


def _of_shape(shape: tuple[int, ...]) -> tuple[int, int] | None:
    return (shape[1], shape[0]) if len(shape) in (2, 3) else None
