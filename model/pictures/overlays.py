"""What lies at places of a picture, drawn over it: boxes, instances, people."""

import zlib
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ..classes import class_colors
from ..tokenizers.instances import FRAME
from ..tokenizers.sequences import Box
from .lettering import FAINT, INK, PAPER, Lettering

_GREY = (226, 229, 232)
_FEW = 20  # boxes; more get thin lines
_FILL = 0.45  # opacity of an instance
_NUM_COLORS = 64


def draw_boxes(boxes: Sequence[Box], over: np.ndarray | None, size: int, text: Lettering) -> Image.Image:
    """Boxes in the colours of their labels, larger ones below; labels where there is room for them."""
    picture = background(over, size)
    draw = ImageDraw.Draw(picture)
    ordered = sorted(boxes, key=lambda box: (box.x0 - box.x1) * (box.y1 - box.y0))
    line = max(1, round(size / (100 if len(boxes) <= _FEW else 256)))
    for box in ordered:
        corners = [round(u * (size - 1)) for u in box[:4]]
        color = color_of(box.label)
        if len(boxes) <= _FEW:  # an inner line that can be told from the outer one on any photo
            draw.rectangle(corners, None, readable_on(color), line + max(1, line // 2))
        draw.rectangle(corners, None, color, line)
    taken: list[tuple[float, float, float, float]] = []
    for box in reversed(ordered):
        _draw_label(draw, box, size, text, taken)
    return picture if boxes else without(picture, "no boxes", text)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    box: Box,
    size: int,
    text: Lettering,
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Write a box's label above, in, or below it, where no other one is; else leave it out."""
    words = text.cut(box.label, size - 6)
    width, height = text.font.getlength(words) + 6, text.line + 1
    left = min(box.x0 * size, size - width)
    for top in (box.y0 * size - height, box.y0 * size, box.y1 * size - height, box.y1 * size):
        place = (left, top, left + width, top + height)
        if top < 0 or top + height > size or any(_overlap(place, other) for other in taken):
            continue
        color = color_of(box.label)
        draw.rectangle(place, color)
        draw.text((left + 3, top), words, readable_on(color), text.font)
        taken.append(place)
        return


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def draw_instances(instances: np.ndarray, over: np.ndarray | None, size: int, text: Lettering) -> Image.Image:
    """INSTANCE (N,) as translucent shapes with outlines, larger ones below, and the points asked."""
    pixels = np.asarray(background(over, size)).astype(np.float32)
    colors = class_colors(_NUM_COLORS).astype(np.float32)
    masks = [instance_mask(instance, size) for instance in instances]
    outlines = np.zeros((size, size), np.int32)
    for i in sorted(range(len(masks)), key=lambda i: -int(masks[i].sum())):
        color = colors[i % _NUM_COLORS]
        pixels[masks[i]] = (1 - _FILL) * pixels[masks[i]] + _FILL * color
        inner = cv2.erode(masks[i].astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)
        outlines[masks[i] & (inner == 0)] = 1 + i % _NUM_COLORS
    pixels[outlines > 0] = colors[outlines[outlines > 0] - 1]
    picture = Image.fromarray(np.round(pixels).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    radius = max(1.5, size / 110)
    for x, y in {(int(x), int(y)) for x, y in instances["point"]}:
        x, y = (x + 0.5) * size / FRAME, (y + 0.5) * size / FRAME
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), PAPER, INK)
    return picture if any(mask.any() for mask in masks) else without(picture, "no instances", text)


def instance_mask(instance: np.void, size: int) -> np.ndarray:
    """The mask bool (size, size) of one INSTANCE: resized into its box and cut at one half."""
    mask = np.zeros((size, size), bool)
    x0, y0, x1, y1 = (round(u * size / FRAME) for u in instance["box"].clip(0, FRAME).tolist())
    if x0 < x1 and y0 < y1:
        resized = cv2.resize(instance["mask"].astype(np.float32), (x1 - x0, y1 - y0))
        mask[y0:y1, x0:x1] = resized > 0.5
    return mask


def background(over: np.ndarray | None, size: int) -> Image.Image:
    """The photo, or plain grey, as a square."""
    if over is None:
        return Image.new("RGB", (size, size), _GREY)
    return Image.fromarray(np.ascontiguousarray(over)).resize((size, size), Image.Resampling.BICUBIC)


def without(picture: Image.Image, words: str, text: Lettering) -> Image.Image:
    """The picture with words in its corner that say what is not there."""
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, text.font.getlength(words) + 8, text.line + 3), PAPER)
    draw.text((4, 1), words, FAINT, text.font)
    return picture


def color_of(label: str) -> tuple[int, int, int]:
    """A colour that is the same for a label in every picture."""
    red, green, blue = class_colors(_NUM_COLORS)[zlib.crc32(label.encode()) % _NUM_COLORS]
    return int(red), int(green), int(blue)


def readable_on(color: Sequence[int]) -> tuple[int, int, int]:
    """Dark or light, whichever can be read on a colour."""
    return INK if np.dot(color, (0.299, 0.587, 0.114)) > 140 else PAPER
