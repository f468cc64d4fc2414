"""Maps of instances: an id a pixel, 0 none, as pictures and arrays hold them."""

from pathlib import Path

import numpy as np

from ...errors import InputError
from ..images import ImageLimits, central_square, decode_stored, is_image
from .arrays import read_array
from .content import read_bytes
from .shapes import Shape, check_size, draw_mask

_MAX_IDS = 100  # of a map, the largest


def read_id_map(
    content: object, name: str, max_bytes: int, size: tuple[float, float] | None = None
) -> np.ndarray:
    """Ids of instances (H, W), 0 none, from a picture, an array or a NumPy file.

    Raises InputError for other numbers and for another `size` (width, height), LimitError.
    """
    if isinstance(content, Path | bytes):
        content = read_bytes(content, max_bytes, name)
        if is_image(content):
            image = decode_stored(content, name=name, limits=ImageLimits(max_bytes))
            content = np.asarray(image)
            if image.mode == "RGB":  # as in COCO's panoptic pictures
                content = content @ np.array([1, 256, 256 * 256], np.int32)
    if not isinstance(content, np.ndarray | bytes):
        raise InputError(f"{name}: expected a map of ids, got {type(content).__name__}.")
    ids = read_array(content, name=name, max_bytes=max_bytes)
    if ids.ndim != 2 or ids.dtype.kind == "f":
        raise InputError(f"{name}: a map of ids is integers (H, W), got {ids.dtype} {ids.shape}.")
    if ids.dtype.kind == "i" and ids.min() < 0:
        raise InputError(f"{name}: ids must not be negative; 0 is nothing.")
    check_size(ids.shape[::-1], size, name)
    return ids


def map_shapes(ids: np.ndarray) -> list[Shape]:
    """The largest instances of a map (H, W), by id."""
    numbers, areas = np.unique(central_square(ids), return_counts=True)
    largest = np.argsort(-areas, kind="stable")[: _MAX_IDS + 1]
    return [
        Shape(float(areas[i]), None, lambda i=i: draw_mask(ids == numbers[i]))
        for i in np.sort(largest)
        if numbers[i]
    ]
