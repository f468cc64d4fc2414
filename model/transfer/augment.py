"""What part of a picture the model sees, alike in all maps of a sample, and how its colours vary."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image, ImageEnhance

_MIN_SIDE = 1.0
_TRIES = 10


@dataclass(frozen=True)
class View:
    """A part of a picture on the model's square; what it does not fill, right and below, is padding.

    Attributes:
        box: left, top, right, bottom in pixels of the picture.
        width, height: that the part takes of the square.
        mirrored: left for right.
    """

    box: tuple[float, float, float, float]
    width: int
    height: int
    mirrored: bool = False

    def mirror(self) -> "View":
        """The same part, left for right."""
        return replace(self, mirrored=not self.mirrored)


def whole(width: int, height: int, size: int) -> View:
    """All of a picture: its longer side fills the square."""
    return scaled(width, height, size, 1.0, np.zeros(2))


def central(width: int, height: int, size: int, share: float = 1.0) -> View:
    """The central square, of a share of the shorter side."""
    side = share * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return View((left, top, left + side, top + side), size, size)


def scaled(width: int, height: int, size: int, scale: float, place: np.ndarray) -> View:
    """A picture whose longer side is `scale` times the square's: cut where it is larger, padded where not.

    Args:
        width, height: of the picture.
        size: side of the square.
        scale: above 0.
        place: where the cut lies, each in 0..1: across, down.
    """
    factor = scale * size / max(width, height)
    across, down = min(size / factor, width), min(size / factor, height)
    left, top = place[0] * (width - across), place[1] * (height - down)
    wide, high = (max(1, min(size, round(factor * side))) for side in (across, down))
    return View((left, top, left + across, top + down), wide, high)


def jittered(
    rng: np.random.Generator, width: int, height: int, size: int, scales: tuple[float, float]
) -> View:
    """Large-scale jitter (arXiv 2012.07177): any scale, any place."""
    return scaled(width, height, size, rng.uniform(*scales), rng.random(2))


def random_square(rng: np.random.Generator, width: int, height: int, size: int) -> View:
    """A square as large as the picture allows, at any place."""
    side = min(width, height)
    left, top = rng.random() * (width - side), rng.random() * (height - side)
    return View((left, top, left + side, top + side), size, size)


def random_area(
    rng: np.random.Generator, width: int, height: int, size: int, areas: tuple[float, float]
) -> View:
    """A part of some share of the area and of proportions 3:4 to 4:3, pulled square (Inception's crop)."""
    for _ in range(_TRIES):
        area = width * height * rng.uniform(*areas)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        across, down = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if across <= width and down <= height:
            left, top = rng.random() * (width - across), rng.random() * (height - down)
            box = (left, top, left + max(across, _MIN_SIDE), top + max(down, _MIN_SIDE))
            return View((*box[:2], min(box[2], width), min(box[3], height)), size, size)
    return central(width, height, size)


def cut(values: np.ndarray, view: View, size: int, fill: float | tuple[int, ...]) -> np.ndarray:
    """What a view shows of a map.

    Args:
        values: uint8 colours (H, W, 3), resized smoothly; or int32 or float32 (H, W), whose pixels each take
            the nearest: labels and depths at an edge do not mix.
        view: of a map of this size.
        size: side S of the square.
        fill: value of padding, or its colour.

    Returns:
        (S, S, 3) or (S, S) of the same type.
    """
    smooth = values.dtype == np.uint8
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    part = np.asarray(Image.fromarray(values).resize((view.width, view.height), how, box=view.box))
    square = np.full((size, size, *values.shape[2:]), fill, values.dtype)
    square[: view.height, : view.width] = part[:, ::-1] if view.mirrored else part
    return square


def vary_colors(rng: np.random.Generator, pixels: np.ndarray, *, color: float, grey: float) -> np.ndarray:
    """Colours uint8 (H, W, 3) that are changed or gone with these chances.

    Brightness and contrast by up to 40 %, saturation by up to 20 %, hue by up to a tenth of the circle, as
    MultiMAE's segmentation has it (arXiv 2204.01678).
    """
    if rng.random() < color:
        image = Image.fromarray(pixels)
        for enhance, spread in (
            (ImageEnhance.Brightness, 0.4),
            (ImageEnhance.Contrast, 0.4),
            (ImageEnhance.Color, 0.2),
        ):
            image = enhance(image).enhance(rng.uniform(1 - spread, 1 + spread))
        circle = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2HSV_FULL)
        circle[..., 0] += np.uint8(rng.integers(-25, 26) % 256)  # of 256: wraps around
        pixels = cv2.cvtColor(circle, cv2.COLOR_HSV2RGB_FULL)
    if rng.random() < grey:
        pixels = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return pixels
