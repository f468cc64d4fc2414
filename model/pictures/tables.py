"""Words and numbers as pictures: captions, palettes, statistics, and why there is nothing to show."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..tokenizers.sequences import METADATA, MetadataType
from .lettering import FAINT, INK, PAPER, TILE, Lettering

_BAR, _EMPTY = (43, 108, 176), (222, 226, 230)
_WARNING, _ON_WARNING = (253, 240, 225), (146, 64, 14)

Color = tuple[int, int, int]


def draw_text(words: str, size: int, text: Lettering) -> Image.Image:
    """Words on a plain square, cut where they do not fit."""
    return _boxed(words or "(no words)", size, text, TILE, INK if words.strip() else FAINT)


def draw_problem(reason: str, size: int, text: Lettering) -> Image.Image:
    """A plain square that says why there is nothing else in it."""
    return _boxed(reason, size, text, _WARNING, _ON_WARNING)


def draw_note(words: str, size: int, text: Lettering) -> Image.Image:
    """A line or two below a picture."""
    lines = text.wrap(words, size - 8, 2)
    note = Image.new("RGB", (size, len(lines) * text.line + 6), _WARNING)
    for i, line in enumerate(lines):
        ImageDraw.Draw(note).text((4, 3 + i * text.line), line, _ON_WARNING, text.font)
    return note


def draw_palette(colors: Sequence[Color], over: np.ndarray | None, size: int, text: Lettering) -> Image.Image:
    """Colours one below the other with their codes; over a photo, each as tall as its share of it."""
    if not colors:
        return draw_text("no colours", size, text)
    shares = None if over is None else palette_shares(colors, over)
    least = text.line + 6
    height = max(size, least * len(colors))
    weights = np.full(len(colors), 1 / len(colors)) if shares is None else shares
    edges = np.round(np.cumsum([0, *(least + (height - least * len(colors)) * weights)])).astype(int).tolist()
    picture = Image.new("RGB", (size, edges[-1]), PAPER)
    draw = ImageDraw.Draw(picture)
    for i, color in enumerate(colors):
        top, end = edges[i], edges[i + 1]
        draw.rectangle((0, top, size, end - 1), color)
        ink = INK if np.dot(color, (0.299, 0.587, 0.114)) > 140 else PAPER
        middle = (top + end - text.line) / 2
        draw.text((8, middle), "#{:02x}{:02x}{:02x}".format(*color), ink, text.font)
        if shares is not None:
            share = f"{100 * shares[i]:.0f} %"
            draw.text((size - 8 - text.font.getlength(share), middle), share, ink, text.font)
    return picture


def palette_shares(colors: Sequence[Color], over: np.ndarray) -> np.ndarray:
    """Shares (N,) of the pixels uint8 (H, W, 3) that lie nearest to each colour; equal ones share."""
    step = max(1, max(over.shape[:2]) // 96)
    pixels = over[::step, ::step].reshape(-1, 1, 3).astype(np.float32)
    distances = ((pixels - np.asarray(colors, np.float32)) ** 2).sum(-1)
    nearest = distances == distances.min(1, keepdims=True)
    return (nearest / nearest.sum(1, keepdims=True)).mean(0)


def draw_statistics(values: Mapping[str, float], size: int, text: Lettering) -> Image.Image:
    """A line for each statistic: its name, its number, and where this lies in a range that has an end."""
    if not values:
        return draw_text("no numbers", size, text)
    picture = Image.new("RGB", (size, len(values) * text.line + 2), PAPER)
    draw = ImageDraw.Draw(picture)
    bar_left, bar_right = round(0.56 * size), round(0.80 * size)
    for i, (name, value) in enumerate(values.items()):
        top = 1 + i * text.line
        draw.text((0, top), text.cut(name.replace("_", " "), bar_left - 4), INK, text.font)
        _draw_bar(draw, METADATA[name], value, (bar_left, top + 3, bar_right, top + text.line - 4))
        number = f"{value:.4g}"
        draw.text((size - text.font.getlength(number), top), number, INK, text.font)
    return picture


def _draw_bar(
    draw: ImageDraw.ImageDraw, kind: MetadataType, value: float, place: tuple[int, int, int, int]
) -> None:
    """The value within its range, or as that many of its levels; numbers without an end have no bar."""
    left, top, right, bottom = place
    if kind.kind == "range":
        draw.rectangle(place, _EMPTY)
        end = left + (right - left) * min(max(value / kind.maximum, 0), 1)
        draw.rectangle((left, top, max(end, left + 1), bottom), _BAR)
    elif kind.kind == "levels":
        num = len(kind.levels)
        step = (right + 3 - left) / num
        for i in range(num):
            box = (left + i * step, top, left + (i + 1) * step - 3, bottom)
            draw.rectangle(box, _BAR if i < value else _EMPTY)


def _boxed(words: str, size: int, text: Lettering, paper: Color, ink: Color) -> Image.Image:
    picture = Image.new("RGB", (size, size), paper)
    draw = ImageDraw.Draw(picture)
    pad = max(4, size // 24)
    for i, line in enumerate(text.wrap(words, size - 2 * pad, max(1, (size - 2 * pad) // text.line))):
        draw.text((pad, pad + i * text.line), line, ink, text.font)
    return picture
