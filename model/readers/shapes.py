"""Instances before they are rasterised: the shape that a file gives, and how it is drawn into its box."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ..images import central_square
from ..tokenizers.instances import FRAME
from ..values import MASK_SIDE
from .frames import clip_polygon
from .masks import fill_polygons, stretch_mask

MIN_BOX_AREA = 0.0005 * FRAME * FRAME
"""Instances with a smaller box, in pixels of the frame, were left out in training."""

Drawn = tuple[Sequence[int], np.ndarray]
"""A box x0, y0, x1, y1 in the frame, and the mask uint8 (64, 64) in it."""


@dataclass(frozen=True)
class Shape:
    """One instance before it is rasterised: its pixels, the point asked, and what draws it or gives None."""

    area: float
    point: tuple[int, int] | None
    draw: Callable[[], Drawn | None]


def draw_nothing() -> Drawn:
    """The answer at a point where nothing is."""
    return (0, 0, 0, 0), np.zeros((MASK_SIDE, MASK_SIDE), np.uint8)


def draw_mask(mask: np.ndarray) -> Drawn | None:
    """The part of a mask bool (H, W) of the picture that is in its central square."""
    mask = central_square(mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    box = [round(float(edge) * FRAME / len(mask)) for edge in (left, top, right, bottom)]
    return (box, stretch_mask(mask[top:bottom, left:right])) if _is_seen(box) else None


def draw_polygons(parts: Sequence[np.ndarray]) -> Drawn | None:
    """The part of polygons in coordinates of the frame that is inside it."""
    clipped = [np.round(part).astype(np.int32) for part in map(clip_polygon, parts)]
    clipped = [part for part in clipped if len(part)]
    if not clipped:
        return None
    points = np.concatenate(clipped)
    box = [*points.min(0).tolist(), *points.max(0).tolist()]
    return (box, fill_polygons(clipped, box)) if _is_seen(box) else None


def _is_seen(box: Sequence[int]) -> bool:
    width, height = box[2] - box[0], box[3] - box[1]
    return min(width, height) > 0 and width * height >= MIN_BOX_AREA


def polygon_area(points: np.ndarray) -> float:
    """What a polygon (P, 2) encloses."""
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def check_size(found: Sequence[float], size: tuple[float, float] | None, name: str) -> None:
    """Refuse a mask of another width and height than its picture. Raises InputError."""
    if size is not None and tuple(found) != size:
        raise InputError(
            f"{name}: a map of {found[0]} x {found[1]} pixels, but the picture has "
            f"{size[0]:g} x {size[1]:g}; give one of the same size."
        )
