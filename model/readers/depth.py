"""Depth maps: how far each pixel is, in any unit, to numbers without one."""

import numpy as np
from PIL import Image

from ...errors import InputError
from ..images import ImageLimits, central_square
from ..modalities import Modality
from .content import Content
from .pictures import one_channel, read_stored

_EPSILON = 1e-6  # of the published standardisation, in units of the 16-bit range

_FULL_SCALE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


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
    low, high = depth.min(), depth.max()
    if low == high:
        raise InputError(f"{name}: all of its central square is at {low}; a depth map needs near and far.")
    if depth.dtype in _FULL_SCALE:
        return standardize(_resized(depth, row.image_size) / _FULL_SCALE[depth.dtype])
    with np.errstate(over="ignore", invalid="ignore"):
        wide = depth.astype(np.float64 if depth.dtype.itemsize == 8 else np.float32)
        values = _middle_to_unit(_resized((wide - wide.min()) / (wide.max() - wide.min()), row.image_size))
        standard = standardize(values)
    if not np.isfinite(standard).all():
        raise InputError(f"{name}: depths in {low:g}..{high:g} are too far apart.")
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
    values = np.ascontiguousarray(values, np.float32)
    if values.shape == (size, size):
        return values
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR))


def _middle_to_unit(values: np.ndarray) -> np.ndarray:
    """Bring most depths to 0..1, so that their unit does not matter beside epsilon."""
    low, high = np.quantile(values.astype(np.float64), [0.1, 0.9])
    return (values - low) / (high - low) if low < high else values.astype(np.float64)
