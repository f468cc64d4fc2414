"""Maps as pictures: pixels as they are, depth with a scale, classes with a legend."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..classes import id_colors
from .lettering import FAINT, INK, PAPER, Lettering

_MAX_CLASSES = 8  # in a legend; the rest is counted
_DEPTH_COLORS = "magma_r"  # near is bright; lightness falls evenly, so that it reads in grey too
_OUTLIERS = 1.0  # percent at each end: a sky would leave one colour for all else


def draw_pixels(pixels: np.ndarray, size: int) -> Image.Image:
    """Pixels or edges, uint8 (H, W) or (H, W, 3), resized to `size` in width."""
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    return image.resize(fitting(pixels, size), Image.Resampling.BICUBIC)


def draw_depth(depth: np.ndarray, size: int, text: Lettering) -> Image.Image:
    """Depth (H, W) from bright, near, to dark, far, above a scale in the units of the value."""
    from matplotlib import colormaps  # a third of a second that only depth is worth

    near, far = (float(edge) for edge in np.percentile(depth, (_OUTLIERS, 100 - _OUTLIERS)))
    if near == far:
        near, far = float(depth.min()), float(depth.max())
    share = (depth.astype(np.float64) - near) / (far - near) if far > near else np.full(depth.shape, 0.5)
    colors = colormaps[_DEPTH_COLORS]
    picture = draw_pixels(colors(np.clip(share, 0, 1), bytes=True)[..., :3], size)
    bar = colors(np.linspace(0, 1, size) if far > near else np.full(size, 0.5), bytes=True)[None, :, :3]
    scale = Image.new("RGB", (size, text.line // 2 + text.line + 4), PAPER)
    scale.paste(Image.fromarray(np.repeat(bar, text.line // 2, axis=0)), (0, 2))
    draw = ImageDraw.Draw(scale)
    words = (f"near {near:.2f}", f"far {far:.2f}") if far > near else (f"{near:.2f} everywhere", "")
    top = text.line // 2 + 4
    draw.text((0, top), words[0], INK, text.font)
    draw.text((size - text.font.getlength(words[1]), top), words[1], INK, text.font)
    return stacked(picture, scale)


def draw_classes(labels: np.ndarray, size: int, text: Lettering, classes: Sequence[str]) -> Image.Image:
    """Labels (H, W), 0 nothing and k `classes[k - 1]`, above a legend of those that cover most."""
    colors = label_colors()
    picture = Image.fromarray(colors[labels]).resize(fitting(labels, size), Image.Resampling.NEAREST)
    counts = np.bincount(labels.ravel(), minlength=256)
    found = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    shown = found if len(found) <= _MAX_CLASSES else found[: _MAX_CLASSES - 1]
    entries = [(label_name(k, classes), colors[k], counts[k] / labels.size) for k in shown]
    legend = Image.new("RGB", (size, 4 + text.line * -(-(len(entries) + (shown != found)) // 2)), PAPER)
    draw = ImageDraw.Draw(legend)
    width, side = size // 2, round(text.line * 0.6)
    for i, (name, color, share) in enumerate(entries):
        left, top = i % 2 * width, 4 + i // 2 * text.line
        draw.rectangle((left, top + 2, left + side, top + 2 + side), tuple(color.tolist()))
        number = f"{100 * share:.0f} %" if share >= 0.005 else "< 1 %"
        number_left = left + width - 8 - text.font.getlength(number)
        draw.text((number_left, top), number, FAINT, text.font)
        left += side + 5
        draw.text((left, top), text.cut(name, number_left - left - 4), INK, text.font)
    if shown != found:
        place = (len(shown) % 2 * width, 4 + len(shown) // 2 * text.line)
        draw.text(place, f"and {len(found) - len(shown)} more", FAINT, text.font)
    return stacked(picture, legend)


def label_name(label: int, classes: Sequence[str]) -> str:
    """What a label of a segmentation stands for."""
    if label == 0:
        return "nothing"
    return classes[label - 1] if label <= len(classes) else f"class {label}"


def label_colors() -> np.ndarray:
    """Colours uint8 (256, 3) of the labels of a segmentation; black is nothing."""
    return np.roll(id_colors(), 1, axis=0)


def stacked(*images: Image.Image) -> Image.Image:
    """Pictures of one width below each other."""
    sheet = Image.new("RGB", (images[0].width, sum(image.height for image in images)), PAPER)
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    return sheet


def fitting(pixels: np.ndarray, size: int) -> tuple[int, int]:
    """Width `size` and the height that keeps the shape of a pixel, 1 to 4 times the width."""
    height, width = pixels.shape[:2]
    return size, min(max(1, round(size * height / width)), 4 * size)
