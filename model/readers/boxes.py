"""COCO's detections as the boxes that `texts.parse_boxes` knows."""

from collections.abc import Mapping
from typing import Any

from ...errors import InputError
from .coco import SLACK, CocoPicture, parse_coco
from .content import parse_number


def parse_coco_boxes(value: Mapping[str, Any], name: str = "det") -> dict[str, Any]:
    """Boxes with labels of a COCO file of one picture.

    Args:
        value: `{"images": [{"width", "height"}], "annotations": [{"bbox": [x, y, w, h], "category_id"}],
            "categories": [{"id", "name"}]}`, pixels of the picture; annotations may have a `score`.
        name: what messages call it.

    Returns:
        `{"instances": [{"box": [x0, y0, x1, y1], "label", "score"?}], "width", "height"}`: fractions of the
        picture, which `parse_boxes` moves into its central square.

    Raises:
        InputError: no size, several pictures, an unknown category, a box that leaves the picture.
        LimitError: too many annotations.
    """
    picture = parse_coco(value, name)
    if picture.size is None:
        raise InputError(
            f'{name}: does not say how large the picture is; add "images": [{{"width": 640, "height": 480}}].'
        )
    width, height = picture.size
    boxes = [
        _box(one, picture, picture.size, f"{name}: annotation {i}")
        for i, one in enumerate(picture.annotations)
    ]
    return {"instances": boxes, "width": width, "height": height}


def _box(
    one: Mapping[str, Any], picture: CocoPicture, size: tuple[float, float], name: str
) -> dict[str, Any]:
    numbers = one.get("bbox")
    if not isinstance(numbers, list | tuple) or len(numbers) != 4:
        raise InputError(f'{name}: expected "bbox": [x, y, width, height] in pixels.')
    x, y, w, h = (parse_number(u, f"{name}: bbox") for u in numbers)
    width, height = size
    if w < 0 or h < 0:
        raise InputError(f"{name}: bbox [{x:g}, {y:g}, {w:g}, {h:g}] has a negative width or height.")
    if min(x, y) < -SLACK or x + w > width + SLACK or y + h > height + SLACK:
        raise InputError(
            f"{name}: bbox [{x:g}, {y:g}, {w:g}, {h:g}] (x, y, width, height) reaches outside the picture of "
            f"{width:g} x {height:g} pixels."
        )
    category = one.get("category_id")
    label = picture.names.get(category) if isinstance(category, int) else None
    if label is None:
        known = (
            ", ".join(f"{key} {label}" for key, label in list(picture.names.items())[:10]) or "it has none"
        )
        raise InputError(
            f"{name}: category_id {str(category)[:40]} is none of the file's categories ({known})."
        )
    corners = (x / width, y / height, (x + w) / width, (y + h) / height)
    box: dict[str, Any] = {"box": [min(max(u, 0.0), 1.0) for u in corners], "label": label}
    return box | ({"score": one["score"]} if "score" in one else {})
