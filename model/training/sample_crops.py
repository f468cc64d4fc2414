"""Crops of a sample: the same square cut out of all its pictures, maps and boxes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..modalities import Modality
from ..readers.depth import standardize
from ..readers.pictures import mirror_normals
from ..tokenizers.sequences import Box

OVERSAMPLING = 2
"""Maps that are cut are read so many times as large: most crops then need no enlarging."""

CROPPED = frozenset({"rgb", "depth", "normal", "semseg", "canny_edge", "sam_edge", "det"})
"""Modalities of which a crop can be made."""
WHOLE = frozenset({"caption", "t5_caption", "metadata", "color_palette"})
"""Modalities that say the same of every crop."""

_METHODS = {"semseg": Image.Resampling.NEAREST, "rgb": Image.Resampling.BICUBIC}
_LEAST_AREA = 0.2
_LEAST_VISIBLE = 0.25
_EDGE = 64  # an edge of one pixel keeps a quarter of its brightness where sides are halved


@dataclass(frozen=True)
class Crop:
    """A square within the central square of a picture, as fractions of its side.

    Attributes:
        top, left, side: where.
        mirrored: left and right swapped afterwards.
    """

    top: float = 0.0
    left: float = 0.0
    side: float = 1.0
    mirrored: bool = False


def draw_crops(count: int, rng: np.random.Generator) -> list[Crop]:
    """The central square, then random crops of at least a fifth of its area, half of them mirrored."""
    crops = [Crop()]
    for _ in range(count - 1):
        side = float(np.sqrt(rng.uniform(_LEAST_AREA, 1)))
        top, left = rng.uniform(0, 1 - side, 2).tolist()
        crops.append(Crop(top, left, side, bool(rng.integers(2))))
    return crops


def crop_value(row: Modality, value: np.ndarray, crop: Crop) -> np.ndarray:
    """A crop of a picture or map (B, B, ...) of the central square, at the size of its modality."""
    assert row.image_size is not None
    full, kind = len(value), row.reads_as
    left, top, side = full * crop.left, full * crop.top, full * crop.side
    cut = Image.fromarray(value).resize(
        (row.image_size, row.image_size),
        _METHODS.get(kind, Image.Resampling.BILINEAR),
        (left, top, min(left + side, full), min(top + side, full)),
    )
    result = np.asarray(cut)
    if kind == "depth":
        result = standardize(result)
    if kind in ("canny_edge", "sam_edge"):
        result = np.where(result >= _EDGE, np.uint8(255), np.uint8(0))
    if crop.mirrored:
        result = mirror_normals(result) if kind == "normal" else result[:, ::-1]
    return np.ascontiguousarray(result)


def crop_boxes(boxes: Iterable[Box], crop: Crop) -> list[Box]:
    """Boxes as a crop shows them; of which it shows less than a quarter are left out."""
    found: list[Box] = []
    for box in boxes:
        x = [min(max((u - crop.left) / crop.side, 0), 1) for u in (box.x0, box.x1)]
        y = [min(max((v - crop.top) / crop.side, 0), 1) for v in (box.y0, box.y1)]
        if crop.mirrored:
            x = [1 - x[1], 1 - x[0]]
        shown = (x[1] - x[0]) * (y[1] - y[0]) * crop.side**2
        if shown >= _LEAST_VISIBLE * max((box.x1 - box.x0) * (box.y1 - box.y0), 1e-9):
            found.append(Box(x[0], y[0], x[1], y[1], box.label))
    return found


def stored_crop(picture: Image.Image, setting: np.ndarray, size: int) -> np.ndarray:
    """A crop that somebody else's tokens are of, uint8 (S, S, 3): row `(top, left, h, w, flip)` in pixels."""
    top, left, height, width, mirrored = (int(number) for number in setting)
    window = (left, top, left + width, top + height)
    cut = picture.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, window)
    return np.ascontiguousarray(np.asarray(cut)[:, ::-1] if mirrored else np.asarray(cut))
