"""Features and vectors as pictures: their main directions as colours, their numbers as bars."""

import numpy as np
from PIL import Image, ImageDraw

from .lettering import FAINT, PAPER, TILE, Lettering
from .maps import fitting

_UP, _DOWN = (43, 108, 176), (221, 107, 32)  # of bars; told apart also by those who confuse red and green
_BAR = 2  # pixels


def draw_features(features: np.ndarray, size: int) -> Image.Image:
    """A feature map (C, h, w): its three principal components as red, green and blue."""
    num_channels, height, width = features.shape
    colors = principal_colors(features.reshape(num_channels, -1).T).reshape(height, width, 3)
    return Image.fromarray(colors).resize(fitting(colors, size), Image.Resampling.NEAREST)


def draw_states(states: np.ndarray, size: int, text: Lettering) -> Image.Image:
    """Vectors of a text (L, C): a stripe for each, coloured by their principal components."""
    strip = Image.fromarray(principal_colors(states)[None]).resize(
        (size, max(text.line, size // 4)), Image.Resampling.NEAREST
    )
    picture = Image.new("RGB", (size, strip.height + text.line + 2), PAPER)
    picture.paste(strip)
    words = f"{len(states)} vector{'s' if len(states) > 1 else ''} of {states.shape[1]} numbers"
    ImageDraw.Draw(picture).text((0, strip.height + 2), text.cut(words, size), FAINT, text.font)
    return picture


def draw_vector(vector: np.ndarray, size: int) -> Image.Image:
    """A vector (C,): a bar for each number, in lines from left to right, up above zero and down below."""
    per_line = min(len(vector), max(1, (size - 2) // _BAR))
    num_lines = -(-len(vector) // per_line)
    height = max(9, size // max(num_lines, 4))
    picture = Image.new("RGB", (size, num_lines * height), TILE)
    draw = ImageDraw.Draw(picture)
    # A few large numbers would flatten all others: the tallest bars are cut.
    reach = float(np.percentile(np.abs(vector), 99)) or float(np.abs(vector).max()) or 1.0
    step = (size - 2) / per_line
    for i, number in enumerate((vector / reach).clip(-1, 1).tolist()):
        line, column = divmod(i, per_line)
        zero = line * height + height / 2
        left, end = int(1 + column * step), zero - number * (height / 2 - 1)
        right = max(int(1 + (column + 1) * step) - 1, left)
        draw.rectangle((left, min(zero, end), right, max(zero, end)), _UP if number > 0 else _DOWN)
    for line in range(1, num_lines):
        draw.line((0, line * height, size, line * height), PAPER)
    return picture


def principal_colors(vectors: np.ndarray) -> np.ndarray:
    """Colours uint8 (N, 3) of vectors (N, C): the places along their three principal components.

    The largest weight of each component is positive, so that equal vectors give equal colours everywhere.
    """
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:3]
    largest = np.abs(directions).argmax(1)
    directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]
    places = np.zeros((len(vectors), 3))
    places[:, : len(directions)] = centred @ directions.T
    low, high = np.percentile(places, (1, 99), axis=0)
    spread = high - low
    # What rounding leaves of a component that is not there has no place on the scale.
    exists = spread > 1e-6 * max(float(np.abs(vectors).max()), 1e-30)
    shares = np.where(exists, (places - low) / np.where(exists, spread, 1), 0.5)
    return np.round(shares.clip(0, 1) * 255).astype(np.uint8)
