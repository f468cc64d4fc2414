"""A picture of queries and what they found: the query on the left, its hits beside it, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageOps

from ..errors import AnyseekError, NotFoundError
from ..model import Lettering
from ..storage import Asset, AssetFiles
from .hits import Hit, Hits
from .pictures import PICTURES, file_of, shown_asset, thumbnail
from .query import Query, QueryPart

Row: TypeAlias = "tuple[Query | QueryPart, Hits | Sequence[Hit]]"

_PAPER, _INK, _FAINT, _TILE = (255, 255, 255), (25, 25, 25), (110, 110, 110), (236, 238, 240)
_GAP = 12
_MAX_CHARS = 240  # of a part's content; what does not fit its place is cut at the bottom


def draw_grid(rows: Sequence[Row], files: AssetFiles, *, columns: int = 8, tile: int = 160) -> Image.Image:
    """Draw queries and their hits, a row each.

    An item without a picture shows its caption or values; a file that is gone leaves its place empty.

    Args:
        rows: queries with their hits.
        files: the library's asset files.
        columns: hits in a row at most, 1..50.
        tile: side of a hit's place in pixels, 32..1024.
    """
    shown = max([1, *(min(columns, len(hits)) for _, hits in rows)])
    text, small = Lettering(max(12, tile // 11)), Lettering(max(11, tile // 13))
    row_height = tile + 2 * text.line + 2 * _GAP
    query_width = 2 * tile
    size = (_GAP + query_width + shown * (tile + _GAP) + _GAP, _GAP + row_height * max(1, len(rows)))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (query, hits) in enumerate(rows):
        top = _GAP + i * row_height
        _draw_query(sheet, Query.of(query), (_GAP, top), (query_width - _GAP, row_height - 2 * _GAP), text)
        for j, hit in enumerate(list(hits)[:columns]):
            left = _GAP + query_width + j * (tile + _GAP)
            _draw_item(sheet, hit.assets, files, (left, top), tile, small)
            draw.text((left, top + tile + 2), f"{hit.score:.3f}", _INK, text.font)
            words = small.cut_start(hit.id, tile)
            draw.text((left, top + tile + 2 + text.line), words, _FAINT, small.font)
        draw.line((_GAP, top + row_height - _GAP, size[0] - _GAP, top + row_height - _GAP), _TILE)
    return sheet


def _draw_query(
    sheet: Image.Image, query: Query, at: tuple[int, int], size: tuple[int, int], text: Lettering
) -> None:
    """The query's pictures in a line, its words below."""
    draw = ImageDraw.Draw(sheet)
    left, top = at
    pictures = [picture for part in query if (picture := _picture_of(part, size[1] // 2)) is not None]
    for picture in pictures[: max(1, 2 * size[0] // size[1])]:
        sheet.paste(picture, (left, top))
        left += picture.width + _GAP // 2
    if pictures:
        top += max(picture.height for picture in pictures) + 4
    num_lines = max(1, (at[1] + size[1] - top) // text.line)
    for line in text.wrap(query.in_words(_MAX_CHARS), size[0], num_lines):
        draw.text((at[0], top), line, _INK, text.font)
        top += text.line


def _picture_of(part: QueryPart, size: int) -> Image.Image | None:
    if part.modality == "color_palette" and isinstance(part.content, Sequence):
        return _swatches([str(color) for color in part.content if isinstance(color, str)], size)
    if part.modality in PICTURES and isinstance(part.content, Path | bytes):
        try:
            return ImageOps.contain(thumbnail(part.content, part.modality, size), (size, size))
        except AnyseekError:
            return None
    return None


def _draw_item(
    sheet: Image.Image,
    assets: Sequence[Asset],
    files: AssetFiles,
    at: tuple[int, int],
    size: int,
    text: Lettering,
) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((*at, at[0] + size - 1, at[1] + size - 1), _TILE)
    asset = shown_asset(assets)
    try:
        if asset is not None:
            picture = ImageOps.contain(thumbnail(file_of(asset, files), asset.modality, size), (size, size))
            sheet.paste(picture, (at[0] + (size - picture.width) // 2, at[1] + (size - picture.height) // 2))
            return
        words = _words_of(assets, files)
    except NotFoundError:
        words = "the file is gone"
    except AnyseekError:
        words = f"no picture of this {asset.modality}" if asset else "no picture"
    for i, line in enumerate(text.wrap(words, size - 12, max(1, (size - 12) // text.line))):
        draw.text((at[0] + 6, at[1] + 6 + i * text.line), line, _INK, text.font)


def _words_of(assets: Sequence[Asset], files: AssetFiles) -> str:
    """An item without pictures in words: its caption, else what else it holds."""
    for asset in assets:
        if asset.modality == "caption":
            if isinstance(asset.value, str):
                return asset.value
            return file_of(asset, files).read_text(encoding="utf-8", errors="replace")[:1000]
    held = [
        f"{a.modality}: {_value_in_words(a.value)}" if a.value is not None else a.modality for a in assets
    ]
    return "\n".join(held) or "no picture"


def _value_in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return str(value)


def _swatches(colors: Sequence[str], size: int) -> Image.Image | None:
    strip = Image.new("RGB", (size, max(8, size // 3)), _TILE)
    draw = ImageDraw.Draw(strip)
    for i, color in enumerate(colors):
        try:
            draw.rectangle(
                (i * size // len(colors), 0, (i + 1) * size // len(colors) - 1, strip.height), color
            )
        except ValueError:  # not a colour: the search has said so already
            return None
    return strip
