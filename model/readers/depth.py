"""Depth maps: how far each pixel is, in any unit, to numbers without one."""

import numpy as np
from PIL import Image

from ...errors import InputError
from ..images import ImageLimits, central_square
from ..modalities import Modality
from .content import Content
from .pictures import one_channel, read_stored

_EPSILON = 1e-6  # of the published standardisation, in units of the 16-bit range


def read_depth(content: Content, *, name: str, row: Modality, limits: ImageLimits) -> np.ndarray:
    """Read a depth map.

    Args:
        content: picture of one channel (8, 16 or 32 bits, or floating point in TIFF), array or NumPy file
            (H, W) or (H, W, 1), integers or real numbers. Larger is farther; unit and offset do not matter.
        name: what messages call it.
        row: the modality, for its size.
        limits: of files and pixels.

    Returns:
        float32 (S, S), the central square, standardised.

    Raises:
        LimitError: larger than `limits`.
        InputError: several channels, transparent pixels, NaN, one depth everywhere, or no picture at all.
    """
    assert row.image_size is not None
    stored = read_stored(content, name=name, limits=limits)
    depth = central_square(one_channel(stored, name, "a depth map"))
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(depth, np.float32)
        if values.min() == values.max():
            raise InputError(
                f"{name}: all of its central square is at {depth.flat[0]}; a depth map needs near and far."
            )
        values = _in_range(_resized(values, row.image_size), depth.dtype)
        standard = standardize(values) if np.isfinite(values).all() else values
    if not np.isfinite(standard).all():
        raise InputError(f"{name}: depths reach from {depth.min():g} to {depth.max():g}, which is too far.")
    return standard


def standardize(depth: np.ndarray) -> np.ndarray:
    """Subtract the mean and divide by the deviation of the middle 80% of the numbers (MiDaS, 4M).

    Args:
        depth: any shape, 16-bit depths as fractions of 65535.

    Returns:
        float32 of that shape.
    """
    ordered = np.sort(depth, axis=None).astype(np.float64)
    middle = ordered[int(0.1 * ordered.size) : int(0.9 * ordered.size)]
    return ((depth - middle.mean()) / np.sqrt(middle.var(ddof=1) + _EPSILON)).astype(np.float32)


def _resized(values: np.ndarray, size: int) -> np.ndarray:
    if values.shape == (size, size):
        return values
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR))


def _in_range(values: np.ndarray, stored: np.dtype) -> np.ndarray:
    """Bring depths to about 0..1, so that their unit does not matter beside epsilon."""
    values = values.astype(np.float64)
    if stored == np.uint8 or stored == np.uint16:
        return values / np.iinfo(stored).max
    low, high = np.quantile(values, [0.1, 0.9])
    if low == high:
        low, high = values.min(), values.max()
    return (values - low) / (high - low)
