"""Captions, boxes, statistics and palettes: checked, and spelt as the model reads them.

Spelt as the authors of the published models do for retrieval: no `[EOS]` ends a condition; metadata ends in
`[S_1]`, "there may be more", since nobody gives all of it.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...errors import InputError
from ..tokenizers.sequences import METADATA, Box, boxes_to_string, metadata_to_string, palette_to_string
from ..tokenizers.text import plain_text
from .boxes import parse_coco_boxes
from .coco import is_coco
from .content import parse_json, parse_number

MAX_COLORS = 7
"""Colours in a palette; the published models saw 1 to 7."""

MIN_SCORE = 0.6
"""Detections that carry a score below this are left out, as in training."""

MAX_LABEL_CHARS = 200
_BOX_SLACK = 1e-3  # rounding of whoever wrote the file


def parse_boxes(value: object, name: str = "det") -> list[Box]:
    """Check boxes.

    Args:
        value: list of `{"box": [x0, y0, x1, y1], "label": str}`, optionally with `"score"`; coordinates are
            fractions 0..1 of the square that the model sees, the central one of the picture. Or
            `{"instances": [...], "width": W, "height": H}`: fractions of a picture of that size, from which
            boxes are moved into the central square. `boxes` and `class_name` are taken for `box` and `label`.
            Or COCO's `{"images": [...], "annotations": [...], "categories": [...]}` of one picture.
        name: what messages call it.

    Raises:
        InputError: something else, or no boxes left.
    """
    size = None
    if is_coco(value):
        value = parse_coco_boxes(value, name)
    if isinstance(value, Mapping):
        size = [parse_number(value[key], f"{name}: {key}") for key in ("width", "height") if key in value]
        value = value.get("instances")
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or (size and (len(size) != 2 or min(size) <= 0))
    ):
        raise InputError(f'{name}: expected a list of {{"box": [x0, y0, x1, y1], "label": "dog"}}.')
    found = [_parse_box(item, f"{name}: box {i}") for i, item in enumerate(value)]
    boxes = [box for box in found if box is not None]
    if size:
        boxes = [moved for box in boxes if (moved := _into_square(box, *size)) is not None]
    if not boxes:
        raise InputError(f"{name}: holds no boxes to use; leave det out.", code="input.empty")
    return boxes


def parse_metadata(value: object, name: str = "metadata") -> dict[str, float]:
    """Check statistics by name and return them in the order of the table. Raises InputError."""
    if not isinstance(value, Mapping):
        raise InputError(f'{name}: expected an object such as {{"brightness": 120}}.')
    unknown = [str(key) for key in value if key not in METADATA]
    if unknown:
        raise InputError(f"{name}: unknown {', '.join(unknown[:5])}; known are {', '.join(METADATA)}.")
    if not value:
        raise InputError(f"{name}: holds no numbers; leave metadata out.", code="input.empty")
    return {key: parse_number(value[key], f"{name}: {key}") for key in METADATA if key in value}


def parse_palette(value: object, name: str = "color_palette") -> list[tuple[int, int, int]]:
    """Check 1 to 7 colours, `"#rrggbb"` or `[r, g, b]` with 0..255 each. Raises InputError."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f'{name}: expected a list of "#rrggbb" or [r, g, b].')
    if not 1 <= len(value) <= MAX_COLORS:
        code = None if len(value) else "input.empty"
        raise InputError(f"{name}: expected 1 to {MAX_COLORS} colours, got {len(value)}.", code=code)
    return [_parse_color(item, f"{name}: colour {i}") for i, item in enumerate(value)]


def spell(modality: str, content: object, name: str) -> str:
    """Spell a value as the text that a model reads.

    Args:
        modality: one of SPELT.
        content: text of the file, or the parsed value.
        name: what messages call it.

    Raises:
        InputError: as `parse_boxes`, `parse_metadata` and `parse_palette`.
    """
    return _SPELL[modality](content, name)


def _spell_caption(content: object, name: str) -> str:
    if not isinstance(content, str):
        raise InputError(f"{name}: expected text, got {type(content).__name__}.")
    return plain_text(content)


def _spell_boxes(content: object, name: str) -> str:
    return boxes_to_string(parse_boxes(_from_json(content, name), name))


def _spell_metadata(content: object, name: str) -> str:
    return metadata_to_string(parse_metadata(_from_json(content, name), name)) + " [S_1]"


def _spell_palette(content: object, name: str) -> str:
    if isinstance(content, str) and not content.lstrip().startswith("["):
        content = re.split(r"[\s,;]+", content.strip()[: 16 * MAX_COLORS]) if content.strip() else []
    return palette_to_string(parse_palette(_from_json(content, name), name))


_SPELL: Mapping[str, Callable[[object, str], str]] = {
    "caption": _spell_caption,
    "det": _spell_boxes,
    "metadata": _spell_metadata,
    "color_palette": _spell_palette,
}

SPELT = frozenset(_SPELL)
"""The user's names of modalities that are texts or spelt as texts."""


def _from_json(content: object, name: str) -> object:
    return parse_json(content, name) if isinstance(content, str) else content


def _parse_box(item: object, name: str) -> Box | None:
    """Check one box; None where its score is too low."""
    if not isinstance(item, Mapping):
        raise InputError(f'{name}: expected {{"box": [x0, y0, x1, y1], "label": "dog"}}.')
    corners = item.get("box", item.get("boxes"))
    label = item.get("label", item.get("class_name"))
    if not isinstance(label, str) or not label.strip() or len(label) > MAX_LABEL_CHARS:
        raise InputError(f"{name}: label must be a text of 1 to {MAX_LABEL_CHARS} characters.")
    if isinstance(corners, np.ndarray):
        corners = corners.tolist()
    if not isinstance(corners, Sequence) or isinstance(corners, str) or len(corners) != 4:
        raise InputError(f"{name}: expected four numbers [x0, y0, x1, y1].")
    x0, y0, x1, y1 = (parse_number(u, f"{name}: coordinate") for u in corners)
    if min(x0, y0) < -_BOX_SLACK or max(x1, y1) > 1 + _BOX_SLACK or x0 > x1 or y0 > y1:
        raise InputError(
            f"{name}: [{x0:g}, {y0:g}, {x1:g}, {y1:g}] is no rectangle within 0..1; "
            "divide pixels by the picture's width and height, and give x0 <= x1, y0 <= y1."
        )
    if "score" in item and parse_number(item["score"], f"{name}: score") < MIN_SCORE:
        return None
    label = " ".join(plain_text(label).split())
    return Box(*(min(max(u, 0.0), 1.0) for u in (x0, y0, x1, y1)), label=label)


def _into_square(box: Box, width: float, height: float) -> Box | None:
    """Move a box from a picture's frame into that of its central square; None where nothing of it is left."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    x0, x1 = (min(max((x * width - left) / side, 0.0), 1.0) for x in (box.x0, box.x1))
    y0, y1 = (min(max((y * height - top) / side, 0.0), 1.0) for y in (box.y0, box.y1))
    return Box(x0, y0, x1, y1, box.label) if x0 < x1 and y0 < y1 else None


def _parse_color(item: object, name: str) -> tuple[int, int, int]:
    if isinstance(item, str) and re.fullmatch(r"#?[0-9a-fA-F]{6}", item.strip()):
        red, green, blue = bytes.fromhex(item.strip().removeprefix("#"))
        return red, green, blue
    if isinstance(item, np.ndarray):
        item = item.tolist()
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 3:
        channels = [parse_number(channel, f"{name}: channel") for channel in item]
        if all(0 <= channel <= 255 and channel == int(channel) for channel in channels):
            red, green, blue = map(int, channels)
            return red, green, blue
    raise InputError(f'{name}: expected "#rrggbb" or [r, g, b] with 0..255 each, got {str(item)[:40]!r}.')
