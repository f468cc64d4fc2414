"""What pictures stand for: a photo for its edges, main colours and statistics."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .images import crop_resize

MEASURED_SIZE = 224
"""Pictures are measured at this side at most: the model saw statistics of small pictures."""

# Of what 4M-21 calls Canny edges only the name is published; these are the thresholds of OpenCV's examples.
_CANNY_THRESHOLDS = (100, 200)
_INK, _PAPER = 64, 192  # a drawing is dark or light, with soft edges between
_MAX_MIDTONES = 0.25
_COLORED = 32
_MAX_COLORED = 0.02


def picture_palette(image: Image.Image) -> list[str]:
    """The main colours of a picture's central square, as `main_colors`."""
    return main_colors(_small(image))


def picture_metadata(image: Image.Image) -> Mapping[str, float]:
    """What can be measured of a picture: its size, and the statistics of its central square."""
    size = {"original_width": image.width, "original_height": image.height}
    return size | dict(picture_statistics(_small(image)))


def main_colors(rgb: NDArray[np.uint8], num_colors: int = 7) -> list[str]:
    """Find the main colours of an image as "#rrggbb", largest share first (k-means, seeded by far points).

    Far points as seeds keep small saturated objects, which a median cut averages away.

    Args:
        rgb: (H, W, 3).
        num_colors: at most so many; fewer where the picture has fewer.
    """
    step = max(1, rgb.shape[0] // 48)
    pixels = rgb[::step, ::step].reshape(-1, 3).astype(np.float32)
    centres = pixels.mean(0, keepdims=True)
    nearest = np.full(len(pixels), np.inf, dtype=np.float32)
    for _ in range(num_colors - 1):
        nearest = np.minimum(nearest, ((pixels - centres[-1]) ** 2).sum(1))
        centres = np.concatenate([centres, pixels[int(nearest.argmax())][None]])
    counts = np.zeros(num_colors, dtype=np.intp)
    for _ in range(4):
        gaps = (centres * centres).sum(1) - 2 * pixels @ centres.T
        owner = gaps.argmin(1)
        counts = np.bincount(owner, minlength=num_colors)
        sums = np.stack([np.bincount(owner, pixels[:, c], num_colors) for c in range(3)], axis=1)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres).astype(
            np.float32
        )
    order = np.argsort(-counts, kind="stable")
    table = np.unique(np.round(centres[order]).astype(int), axis=0, return_index=True)[1]
    return ["#{:02x}{:02x}{:02x}".format(*np.round(centres[order[i]]).astype(int)) for i in sorted(table)]


def picture_statistics(rgb: NDArray[np.uint8]) -> Mapping[str, float]:
    """What a picture alone tells of 4M-21's metadata (arXiv 2406.09406), in the order of the table.

    Args:
        rgb: (H, W, 3).

    Returns:
        `colorfulness`, `brightness`, `contrast`, `saturation` (all in units of 0..255) and `entropy` in bits.
    """
    pixels = rgb.astype(np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return {
        "colorfulness": round(_colorfulness(pixels), 3),
        "brightness": round(float(grey.mean()), 3),
        "contrast": round(float(grey.std()), 3),
        "saturation": round(float(_saturation(pixels)), 3),
        "entropy": round(_entropy(grey), 4),
    }


def photo_edges(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Canny edges of a photo: uint8 (H, W, 3) to uint8 (H, W), 255 on an edge, one pixel wide."""
    import cv2

    # Of a pixel's three gradients the steepest counts: red on a green as bright has an edge too.
    return cv2.Canny(np.ascontiguousarray(rgb), *_CANNY_THRESHOLDS).astype(np.uint8)


def is_drawing(rgb: NDArray[np.uint8]) -> bool:
    """Whether a picture is drawn in lines: almost no colour, and hardly anything between dark and light.

    The rule: at most 2% of the pixels have channels that differ by more than 32, and at most 25% have all
    channels between 64 and 192.

    Args:
        rgb: (H, W, 3).
    """
    step = max(1, max(rgb.shape) // 512)  # enough pixels to tell
    low, high = (pick(rgb[::step, ::step], -1).astype(np.int16) for pick in (np.min, np.max))
    is_grey = (high - low > _COLORED).mean() <= _MAX_COLORED
    return bool(is_grey and ((low > _INK) & (high < _PAPER)).mean() <= _MAX_MIDTONES)


def _small(image: Image.Image) -> NDArray[np.uint8]:
    return crop_resize(image, min(MEASURED_SIZE, *image.size))


def _colorfulness(rgb: NDArray[np.float32]) -> float:
    """Hasler and Suesstrunk, "Measuring colourfulness in natural images" (2003)."""
    red_green = rgb[..., 0] - rgb[..., 1]
    yellow_blue = (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def _saturation(rgb: NDArray[np.float32]) -> np.floating:
    high, low = rgb.max(-1), rgb.min(-1)
    return (255 * (high - low) / np.maximum(high, 1)).mean()


def _entropy(grey: NDArray[np.float32]) -> float:
    share = np.bincount(grey.astype(np.uint8).ravel(), minlength=256) / grey.size
    share = share[share > 0]
    return 0.0 - float((share * np.log2(share)).sum())
