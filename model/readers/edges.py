"""Edge maps: given as maps, drawn by hand, or found in a photo."""

import math

import numpy as np
from PIL import Image

from ...errors import InputError
from ..conversions import is_drawing, photo_edges
from ..images import ImageLimits, array_image, central_square, crop_resize, to_rgb
from ..modalities import Modality
from .content import Content
from .pictures import marked_as, one_channel, read_stored


def read_edges(content: Content, *, name: str, row: Modality, limits: ImageLimits) -> np.ndarray:
    """Read an edge map, a drawing, or (for `canny_edge`) a photo, whose edges are computed here.

    Args:
        content: picture; or array or NumPy file, uint8 or true/false (H, W), which is taken as it is, or
            uint8 (H, W, 3). A picture is a map if it is drawn in lines (`is_drawing`), else a photo; of a
            map, the rarer of dark and light is the edge. A PNG that says that it is one is taken as it is.
        name: what messages call it.
        row: the modality, for its name and size.
        limits: of files and pixels.

    Returns:
        uint8 (S, S), 255 on an edge. Lines stay at least a pixel wide.

    Raises:
        LimitError: larger than `limits`.
        InputError: a photo for `sam_edge`, an array of other numbers, or no picture at all.
    """
    assert row.image_size is not None
    stored = read_stored(content, name=name, limits=limits)
    if isinstance(stored, np.ndarray) and (stored.ndim == 2 or stored.shape[2:] == (1,)):
        return _fit(_array_map(stored, name), row.image_size)
    if marked_as(stored, row.raw):
        return _fit(one_channel(stored, name, "an edge map"), row.image_size)
    image = array_image(stored, name=name) if isinstance(stored, np.ndarray) else to_rgb(stored, name=name)
    pixels = central_square(np.asarray(image))
    if is_drawing(pixels):
        grey = np.asarray(Image.fromarray(pixels).convert("L"))
        return _fit(255 - grey if grey.mean() > 127.5 else grey, row.image_size)
    if row.raw != "canny_edge":
        raise InputError(
            f"{name}: no lines on a plain ground; {row.raw} takes the edges that Segment Anything found, "
            "light on dark, which are not computed here. Or give the photo as canny_edge."
        )
    return photo_edges(crop_resize(image, row.image_size))


def _array_map(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.name not in ("bool", "uint8"):
        raise InputError(
            f"{name}: an array of {values.dtype}; edges are uint8 with 255 on an edge, or true and false."
        )
    flat = one_channel(values, name, "an edge map")
    return flat * np.uint8(255) if flat.dtype == np.bool_ else flat


def _fit(edges: np.ndarray, size: int) -> np.ndarray:
    """Cut and resize; lines that a smaller picture would lose are widened first."""
    import cv2

    square = np.ascontiguousarray(central_square(edges))
    if len(square) == size:
        return square
    shrink = math.floor(len(square) / size)
    if shrink > 1:
        square = cv2.dilate(square, np.ones((shrink, shrink), np.uint8))
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))
