"""One sheet with everything known about some items: what was given, then what was predicted from it."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ...errors import InputError, LimitError
from ..checks import check_value
from ..modalities import RAW_NAMES, raw_name
from ..values import Predicted, Value
from .draw import draw_value
from .lettering import FAINT, INK, PAPER, TILE, Lettering
from .tables import draw_problem

Row = Mapping[str, Value | Predicted]
"""The modalities of one item: plain values were given, `Predicted` ones were predicted."""

_GIVEN, _PREDICTED = (43, 108, 176), TILE
_MAX_PIXELS = 100_000_000


def draw_overview(
    rows: Sequence[Row],
    *,
    title: str = "",
    names: Sequence[str] = (),
    classes: Sequence[str] = (),
    size: int = 256,
    columns: int = 6,
) -> Image.Image:
    """Draw items below each other, each with its given modalities first, marked, and then its predicted ones.

    Every item shows the same modalities in the same places; what it lacks stays empty. Boxes, instances and
    people lie over the item's own RGB where it has one. What cannot be drawn is replaced by the reason.

    Args:
        rows: an item each.
        title: of the sheet.
        names: of the items, above each.
        classes: names of the classes of segmentations.
        size: width of a picture in pixels, 32..2048.
        columns: pictures side by side at most, 1 or more.

    Raises:
        ModelError: unknown modality.
        InputError: no column, or names that are not one for each row.
        LimitError: the sheet would have more than 100 million pixels.
    """
    if columns < 1 or (names and len(names) != len(rows)):
        raise InputError("An overview needs 1 column or more, and a name for each row or none.")
    rows = [{raw_name(word): value for word, value in row.items()} for row in rows]
    order = _order(rows)
    columns = min(columns, max(1, len(order)))
    gap = max(8, size // 16)
    width = columns * (size + gap) - gap
    num_lines = len(rows) * -(-len(order) // columns)
    if width * num_lines * size > _MAX_PIXELS:
        raise LimitError(
            f"An overview of {num_lines} lines of {width} pixels is too large; draw fewer items at once."
        )
    text, heading = Lettering(max(11, size // 18)), Lettering(max(15, size // 12))
    parts = [_draw_words(title, heading, width)] if title else []
    for i, row in enumerate(rows):
        parts += [Image.new("RGB", (width, 2), TILE)] if parts else []
        parts += [_draw_words(names[i], text, width)] if names else []
        for start in range(0, len(order), columns):
            shown = order[start : start + columns]
            parts.append(_side_by_side([_draw_cell(row, raw, classes, size, text) for raw in shown], gap))
    return _sheet(parts, width, gap)


def _order(rows: Sequence[Row]) -> list[str]:
    """Modalities that are given anywhere, then the others, each in the order of the table of modalities."""
    found = {raw for row in rows for raw in row}
    given = {raw for row in rows for raw, value in row.items() if not isinstance(value, Predicted)}
    return [raw for raw in RAW_NAMES if raw in given] + [raw for raw in RAW_NAMES if raw in found - given]


def _draw_cell(row: Row, raw: str, classes: Sequence[str], size: int, text: Lettering) -> Image.Image:
    """A modality of an item below its name; an empty place where the item lacks it."""
    head = text.line + 8
    if raw not in row:
        return Image.new("RGB", (size, head + size), PAPER)
    value = row[raw]
    is_given = not isinstance(value, Predicted)
    try:
        picture = draw_value(raw, value, over=_photo(row), classes=classes, size=size)
    except InputError as error:
        picture = draw_problem(str(error), size, text)
    cell = Image.new("RGB", (size, head + picture.height), PAPER)
    cell.paste(picture, (0, head))
    draw = ImageDraw.Draw(cell)
    mark = "given" if is_given else "predicted"
    left = size - text.font.getlength(mark) - 12
    draw.rounded_rectangle((left, 1, size - 1, text.line + 2), 4, _GIVEN if is_given else _PREDICTED)
    draw.text((left + 6, 1), mark, PAPER if is_given else FAINT, text.font)
    draw.text((0, 1), text.cut(raw, left - 6), INK, text.font)
    return cell


def _photo(row: Row) -> np.ndarray | None:
    """The item's RGB, given or predicted; where it is no picture its own cell says so."""
    value = row.get("rgb")
    try:
        return check_value("rgb", value.value if isinstance(value, Predicted) else value)
    except InputError:
        return None


def _draw_words(words: str, text: Lettering, width: int) -> Image.Image:
    picture = Image.new("RGB", (width, text.line), PAPER)
    ImageDraw.Draw(picture).text((0, 0), text.cut(words, width), INK, text.font)
    return picture


def _side_by_side(cells: Sequence[Image.Image], gap: int) -> Image.Image:
    width = sum(cell.width + gap for cell in cells) - gap
    line = Image.new("RGB", (width, max(cell.height for cell in cells)), PAPER)
    left = 0
    for cell in cells:
        line.paste(cell, (left, 0))
        left += cell.width + gap
    return line


def _sheet(parts: Sequence[Image.Image], width: int, gap: int) -> Image.Image:
    sheet = Image.new("RGB", (width + 2 * gap, gap + sum(part.height + gap for part in parts)), PAPER)
    top = gap
    for part in parts:
        sheet.paste(part, (gap, top))
        top += part.height + gap
    return sheet
