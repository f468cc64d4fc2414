"""Instances from COCO's JSON, lists of polygons or run lengths, and id maps, at points of a 224 x 224 frame.

What is not in the central square of the picture, or too small for the model, is left out; of many, the
largest are kept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, LimitError
from ..images import is_image
from ..modalities import Modality
from ..tokenizers.instances import FRAME, MAX_POINTS
from ..values import INSTANCE, MASK_SIDE
from .arrays import is_numpy
from .coco import check_listed, is_coco, parse_coco, parse_size
from .content import Content, decode_text, parse_json, parse_number, read_bytes
from .frames import Frame
from .id_maps import map_shapes, read_id_map
from .masks import check_polygon, inner_point
from .rle import decode_rle, is_rle, rle_counts, rle_size
from .shapes import Shape, check_size, draw_mask, draw_nothing, draw_polygons, polygon_area

_EXPECTED = (
    'expected COCO\'s JSON, a list of {"polygon": [[x, y], ...]} or {"segmentation": ...}, or a map of ids'
)
_MAX_MASK_PIXELS = 4_000_000_000  # seconds of work; the fullest file of SA-1B has a third
_WORDS_PER_POINT, _WORDS_PER_INSTANCE = 3, 21


def read_instances(content: Content, *, name: str, row: Modality, max_bytes: int) -> np.ndarray:
    """Read the instances of a picture.

    Args:
        content: path or bytes of a file, or what it holds:
            COCO's or SA-1B's JSON of one picture, in its pixels: annotations with `segmentation` (polygons,
            run lengths, compressed ones too) and optionally `point_coords`.
            A list of `{"polygon": [[x, y], ...]}` or `{"segmentation": ...}`, optionally with
            `"point": [x, y]` (a point alone: nothing is there), in pixels of the frame, 224 over the central
            square; or `{"instances": [...], "width": W, "height": H}`, in pixels of such a picture.
            `{"point", "box": [x0, y0, x1, y1], "mask": run lengths 64 x 64 inside the box}`, in the frame.
            A map of ids (0 none): picture or .npy of integers, or colours as in COCO's panoptic files; or
            `{"map": ..., "width": W, "height": H}`, which checks its size.
            INSTANCE (N,) itself.
        name: what messages call it.
        row: the modality, for the longest text.
        max_bytes: limit of a file.

    Returns:
        INSTANCE (N,), at up to 7 points, in the order of the file; without a `point` the innermost one.

    Raises:
        LimitError: larger than a limit.
        InputError: something else; polygons with fewer than 3 points or outside the picture, run lengths or
            maps of another size; nothing that the model could see (code `input.empty`).
    """
    if isinstance(content, np.ndarray) and content.dtype == INSTANCE and content.size:
        return _checked(content, name)
    shapes = _shapes(content, name, max_bytes)
    if not shapes:
        raise InputError(f"{name}: holds no instances; leave {row.raw} out.", code="input.empty")
    rows = _largest(shapes, max(1, (row.max_tokens - MAX_POINTS * _WORDS_PER_POINT) // _WORDS_PER_INSTANCE))
    if not rows:
        raise InputError(
            f"{name}: none of its {len(shapes)} instances is large enough in the central square of the "
            f"picture; leave {row.raw} out.",
            code="input.empty",
        )
    return np.array(rows, INSTANCE)


def _shapes(content: Content, name: str, max_bytes: int) -> list[Shape]:
    if isinstance(content, Path | bytes):
        content = read_bytes(content, max_bytes, name)
        if is_image(content) or is_numpy(content):
            return map_shapes(read_id_map(content, name, max_bytes))
        content = decode_text(content, name)
    value: object = parse_json(content, name) if isinstance(content, str) else content
    if isinstance(value, np.ndarray):
        return [] if value.dtype == INSTANCE else map_shapes(read_id_map(value, name, max_bytes))
    if isinstance(value, Mapping):
        size = parse_size(value, name)
        if "map" in value:
            return map_shapes(read_id_map(value["map"], name, max_bytes, size))
        if is_coco(value):
            picture = parse_coco(value, name)
            return _listed_shapes(picture.annotations, picture.size, f"{name}: annotation")
        if "instances" in value:
            listed = check_listed(value["instances"], f"{name}: instances")
            return _listed_shapes(listed, size, f"{name}: instance")
    if not isinstance(value, Sequence):
        raise InputError(f"{name}: {_EXPECTED}.")
    return _listed_shapes(check_listed(value, name), None, f"{name}: instance")


def _largest(shapes: Sequence[Shape], max_rows: int) -> list[tuple[Any, ...]]:
    """Rows of the largest shapes, as many as one text holds, in the order in which they came."""
    rows: dict[int, tuple[Any, ...]] = {}
    points: set[tuple[int, int]] = set()
    for i in sorted(range(len(shapes)), key=lambda i: -shapes[i].area):
        shape = shapes[i]
        if len(rows) == max_rows:
            break
        drawn = shape.draw() if shape.point in points or len(points) < MAX_POINTS else None
        if drawn is not None:
            point = shape.point or inner_point(drawn[1], drawn[0])
            points.add(point)
            rows[i] = point, *drawn
    return [rows[i] for i in sorted(rows)]


def _listed_shapes(
    entries: Sequence[Mapping[str, Any]], size: tuple[float, float] | None, name: str
) -> list[Shape]:
    """Entries of one picture; where its size is not given, run lengths say it."""
    runs = [one["segmentation"] for one in entries if is_rle(one.get("segmentation"))]
    if runs:
        height, width = rle_size(runs[0], name)
        size = size or (width, height)
        if len(runs) * width * height > _MAX_MASK_PIXELS:
            raise LimitError(f"{name}s: {len(runs)} masks of {width} x {height} pixels are too much to read.")
    return [_listed(one, size, f"{name} {i}") for i, one in enumerate(entries)]


def _listed(one: Mapping[str, Any], size: tuple[float, float] | None, name: str) -> Shape:
    outline = one.get("polygon", one.get("segmentation"))
    if "mask" in one:
        return _stored(one, size, name)
    if outline is None:
        point = _point(one, Frame(*size) if size else Frame(), name)
        if point is None:
            raise InputError(f'{name}: has no "polygon", no "segmentation" and no "point".')
        return Shape(0, point, draw_nothing)
    if is_rle(outline):
        height, width = rle_size(outline, name)
        check_size((width, height), size, name)
        area = float(rle_counts(outline, name)[1::2].sum())
        return Shape(
            area, _point(one, Frame(width, height), name), lambda: draw_mask(decode_rle(outline, name))
        )
    if isinstance(outline, np.ndarray) and outline.ndim == 2 and outline.dtype == bool:
        check_size(outline.shape[::-1], size, name)
        frame = Frame(*outline.shape[::-1])
        return Shape(float(outline.sum()), _point(one, frame, name), lambda: draw_mask(outline))
    frame = Frame(*size) if size else Frame()
    parts = [frame.place(part, name) for part in _parts(outline, name)]
    return Shape(sum(map(polygon_area, parts)), _point(one, frame, name), lambda: draw_polygons(parts))


def _parts(outline: object, name: str) -> list[np.ndarray]:
    """Polygons of an instance: one, or COCO's list of lists of numbers."""
    if not isinstance(outline, Sequence | np.ndarray) or isinstance(outline, str) or not len(outline):
        raise InputError(f"{name}: expected polygons or run lengths, got {str(outline)[:40]!r}.")
    first = outline[0]
    is_list = isinstance(first, Sequence | np.ndarray) and not isinstance(first, str)
    if is_list and (len(first) != 2 or isinstance(first[0], Sequence | np.ndarray)):
        return [check_polygon(part, f"{name}: polygon {i}") for i, part in enumerate(outline)]
    return [check_polygon(outline, name)]


def _point(one: Mapping[str, Any], frame: Frame, name: str) -> tuple[int, int] | None:
    """The point that an entry names, in the frame; None where it names none or one beyond the square."""
    value = one.get("point")
    if value is None and isinstance(one.get("point_coords"), Sequence):  # SA-1B: [[x, y]]
        value = next(iter(one["point_coords"]), None)
    if value is None:
        return None
    if not isinstance(value, Sequence | np.ndarray) or len(value) != 2:
        raise InputError(f"{name}: expected a point [x, y], got {str(value)[:40]!r}.")
    numbers = np.array([[parse_number(u, f"{name}: point") for u in value]])
    x, y = frame.place(numbers, f"{name}: point")[0]
    if min(x, y) < 0 or max(x, y) > FRAME:
        return None
    return min(int(x), FRAME - 1), min(int(y), FRAME - 1)


def _stored(one: Mapping[str, Any], size: tuple[float, float] | None, name: str) -> Shape:
    """A box with a mask 64 x 64 in it, exactly as a value holds them."""
    corners, mask = one.get("box"), one["mask"]
    if (
        size not in (None, (FRAME, FRAME))
        or not is_rle(mask)
        or rle_size(mask, name) != (MASK_SIDE, MASK_SIDE)
    ):
        raise InputError(f'{name}: "mask" must be run lengths of 64 x 64 in a box of the frame.')
    if not isinstance(corners, Sequence) or len(corners) != 4:
        raise InputError(f"{name}: expected a box [x0, y0, x1, y1] in pixels of the frame.")
    x0, y0, x1, y1 = box = [round(parse_number(u, f"{name}: box")) for u in corners]
    if not (0 <= x0 < x1 <= FRAME and 0 <= y0 < y1 <= FRAME):
        raise InputError(f"{name}: {box} is no box within 0..{FRAME}.")
    values = decode_rle(mask, name).astype(np.uint8)
    area = float(values.mean()) * (x1 - x0) * (y1 - y0)
    return Shape(area, _point(one, Frame(), name), lambda: (box, values))


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    """INSTANCE (N,) that somebody gives as it is."""
    box, point = values["box"], values["point"]
    is_box = (box[..., 0] <= box[..., 2]) & (box[..., 1] <= box[..., 3])
    if values.ndim != 1 or not is_box.all() or box.min() < 0 or box.max() > FRAME:
        raise InputError(f"{name}: expected INSTANCE (N,) with boxes within 0..{FRAME}.")
    if point.min() < 0 or point.max() >= FRAME or values["mask"].max() > 1:
        raise InputError(f"{name}: expected points within 0..{FRAME - 1} and masks of 0 and 1.")
    return values
