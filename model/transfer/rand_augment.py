"""RandAugment: a few random operations of one strength (arXiv 1909.13719)."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

NUM_OPERATIONS = 2
_CHANCE = 0.5
_FULL = 10.0
_SPREAD = 0.5
_GREY = (124, 116, 104)  # mean colour of ImageNet

Operation = Callable[[Image.Image, float], Image.Image]


def rand_augment(rng: np.random.Generator, pixels: np.ndarray, magnitude: float) -> np.ndarray:
    """Two operations, each with a chance of one half.

    Args:
        rng: what draws.
        pixels: uint8 (H, W, 3).
        magnitude: 0..10; each operation takes a strength around it (deviation 0.5). All operations grow with
            it, and turn either way where there are two.

    Returns:
        uint8 (H, W, 3).
    """
    image = Image.fromarray(pixels)
    for _ in range(NUM_OPERATIONS):
        operation = _OPERATIONS[int(rng.integers(len(_OPERATIONS)))]
        strength = float(np.clip(rng.normal(magnitude, _SPREAD), 0, _FULL)) / _FULL
        sign = 1.0 if rng.random() < 0.5 else -1.0
        if rng.random() < _CHANCE:
            image = operation(image, sign * strength)
    return np.asarray(image)


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:  # pyright: ignore[reportPrivateUsage]
    return lambda image, strength: kind(image).enhance(1 + 0.9 * strength)


def _affine(matrix: Callable[[Image.Image, float], tuple[float, ...]]) -> Operation:
    return lambda image, strength: image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix(image, strength),
        Image.Resampling.BILINEAR,
        fillcolor=_GREY,
    )


def _add_to_dark(image: Image.Image, strength: float) -> Image.Image:
    added = int(110 * abs(strength))
    return image.point([min(255, i + added) if i < 128 else i for i in range(256)] * 3)


_OPERATIONS: tuple[Operation, ...] = (
    lambda image, _: ImageOps.autocontrast(image),
    lambda image, _: ImageOps.equalize(image),
    lambda image, _: ImageOps.invert(image),
    lambda image, strength: image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=_GREY),
    lambda image, strength: ImageOps.posterize(image, max(1, 4 - int(4 * abs(strength)))),
    lambda image, strength: ImageOps.solarize(image, 256 - int(256 * abs(strength))),
    _add_to_dark,
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    _affine(lambda _, strength: (1, 0.3 * strength, 0, 0, 1, 0)),
    _affine(lambda _, strength: (1, 0, 0, 0.3 * strength, 1, 0)),
    _affine(lambda image, strength: (1, 0, 0.45 * strength * image.width, 0, 1, 0)),
    _affine(lambda image, strength: (1, 0, 0, 0, 1, 0.45 * strength * image.height)),
)
