"""Shapes of instances: polygons, and the 64 x 64 masks that the model reads."""

from collections.abc import Sequence

import cv2
import numpy as np

from ...errors import InputError
from ..values import MASK_SIDE


def fill_polygons(parts: Sequence[np.ndarray], box: Sequence[int]) -> np.ndarray:
    """Rasterise an instance inside its box (as the training data of 4M-21 was made).

    Args:
        parts: polygons int32 (P, 2), x and y in pixels of the frame.
        box: x0, y0, x1, y1 around them, with a width and a height.

    Returns:
        uint8 (64, 64) of 0 and 1, the box stretched to a square; outlines belong to the inside.
    """
    x0, y0, x1, y1 = box
    mask = np.zeros((MASK_SIDE, MASK_SIDE), np.uint8)
    for points in parts:
        stretched = (points - (x0, y0)) / (x1 - x0, y1 - y0) * MASK_SIDE
        cv2.fillPoly(mask, [stretched.astype(np.int32)], 1)  # places are cut, not rounded, as in training
    return mask


def stretch_mask(mask: np.ndarray) -> np.ndarray:
    """Resize a mask bool (h, w) to uint8 (64, 64) of 0 and 1, by the share of each new pixel."""
    share = cv2.resize(mask.astype(np.float32), (MASK_SIDE, MASK_SIDE), interpolation=cv2.INTER_AREA)
    return (share >= 0.5).astype(np.uint8)


def inner_point(mask: np.ndarray, box: Sequence[int]) -> tuple[int, int]:
    """The place x, y in the frame, inside a mask (64, 64) over its box, that is farthest from its outline."""
    x0, y0, x1, y1 = box
    depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    x = x0 + (int(column) + 0.5) * (x1 - x0) / MASK_SIDE
    y = y0 + (int(row) + 0.5) * (y1 - y0) / MASK_SIDE
    return int(x), int(y)


def check_polygon(value: object, name: str) -> np.ndarray:
    """A polygon float64 (P, 2) from `[[x, y], ...]` or `[x, y, x, y, ...]`, 3 points or more.

    Raises InputError.
    """
    try:
        numbers = np.array(value, np.float64)
    except Exception as error:  # texts, lists of different lengths, numbers beyond 64 bits, ...
        raise InputError(f"{name}: expected points [[x, y], ...] or [x, y, x, y, ...].") from error
    if numbers.ndim == 1 and numbers.size % 2 == 0:
        numbers = numbers.reshape(-1, 2)
    if numbers.ndim != 2 or numbers.shape[1] != 2:
        raise InputError(
            f"{name}: expected points [[x, y], ...] or [x, y, x, y, ...], got shape {numbers.shape}."
        )
    if len(numbers) < 3:
        raise InputError(f"{name}: a polygon of {len(numbers)} points has no inside; give 3 or more.")
    if not np.isfinite(numbers).all():
        raise InputError(f"{name}: coordinates are NaN or infinite.")
    return numbers
