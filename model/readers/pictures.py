"""Pictures, and maps that are stored as pictures or arrays: to numbers in the square that the model sees."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError
from ..images import (
    FORMATS,
    ImageLimits,
    array_image,
    crop_resize,
    decode_image,
    decode_stored,
    is_image,
    to_rgb,
)
from ..modalities import Modality
from .arrays import is_numpy, read_array
from .content import Content, read_bytes

CLASSES_KEY = "anyseek:classes"
"""PNG text chunk: the legend of a label map, JSON `{"#rrggbb" or "id": "name"}`."""

MODALITY_KEY = "anyseek:modality"
"""PNG text chunk: of which modality the pixels are the very values, to be neither converted nor inverted."""

# A JPEG is decoded at a fraction of its size, at least this many times the model's: prepared pixels differ
# from those of the whole picture by 0.24 of 255 on average, 2 at most (12 megapixels, 1/f noise).
_OVERSAMPLING = 3
_RANGE_SLACK = 1e-3
_NO_DIRECTION = (128, 128, 128)


def read_rgb(content: Content, *, name: str, row: Modality, limits: ImageLimits) -> np.ndarray:
    """Read a picture: path, bytes of a file, or pixels uint8 (H, W), (H, W, 3) or (H, W, 4).

    Returns:
        uint8 (S, S, 3), the central square at the model's size.

    Raises:
        LimitError, InputError: as `decode_image` and `array_image`.
    """
    assert row.image_size is not None
    if isinstance(content, np.ndarray):
        image = array_image(content, name=name)
    else:
        data = read_bytes(_file(content, name), limits.max_bytes, name)
        image = decode_image(data, name=name, limits=limits, min_side=_OVERSAMPLING * row.image_size)
    return crop_resize(image, row.image_size)


def read_normal(content: Content, *, name: str, row: Modality, limits: ImageLimits) -> np.ndarray:
    """Read surface normals.

    Args:
        content: picture in colours, a component n in -1..1 as 255 (n + 1) / 2, transparent where there is no
            surface; or array or NumPy file, uint8 (H, W, 3) coded so, or real numbers (H, W, 3) in -1..1.
        name: what messages call it.
        row: the modality, for its size.
        limits: of files and pixels.

    Returns:
        uint8 (S, S, 3), coded as the picture.

    Raises:
        LimitError: larger than `limits`.
        InputError: another number of channels, numbers beyond -1..1, NaN, or no picture at all.
    """
    assert row.image_size is not None
    stored = read_stored(content, name=name, limits=limits)
    expected = "normals have three channels, x, y and z"
    if isinstance(stored, np.ndarray):
        if (
            stored.ndim != 3
            or stored.shape[2] != 3
            or (stored.dtype != np.uint8 and stored.dtype.kind != "f")
        ):
            raise InputError(
                f"{name}: an array {stored.dtype} {stored.shape}; {expected}: uint8 (H, W, 3), or real "
                "numbers (H, W, 3) in -1..1."
            )
        image = Image.fromarray(stored if stored.dtype == np.uint8 else _coded_normals(stored, name))
    elif stored.mode in ("1", "L", "LA", "La", "F") or stored.mode.startswith("I"):
        raise InputError(f"{name}: a picture of one channel; {expected}.")
    else:
        image = to_rgb(stored, name=name, background=_NO_DIRECTION)
    return crop_resize(image, row.image_size)


def mirror_normals(pixels: np.ndarray) -> np.ndarray:
    """Mirror coded normals uint8 (..., W, 3) left to right: the x of each turns round with its place."""
    mirrored = pixels[..., ::-1, :].copy()
    mirrored[..., 0] = 255 - mirrored[..., 0]
    return mirrored


def read_stored(content: Content, *, name: str, limits: ImageLimits) -> Image.Image | np.ndarray:
    """Open a map: a picture as it is stored (`decode_stored`), or an array of a NumPy file or from memory.

    Raises:
        LimitError: larger than `limits`.
        InputError: neither picture nor array, damaged, or an array of no plain numbers.
    """
    if isinstance(content, np.ndarray):
        return read_array(content, name=name, max_bytes=limits.max_bytes)
    data = read_bytes(_file(content, name), limits.max_bytes, name)
    if is_numpy(data):
        return read_array(data, name=name, max_bytes=limits.max_bytes)
    if data and not is_image(data):
        raise InputError(f"{name}: neither a picture ({FORMATS}) nor an array (.npy, .npz).")
    return decode_stored(data, name=name, limits=limits)


def one_channel(stored: Image.Image | np.ndarray, name: str, what: str) -> np.ndarray:
    """The numbers (H, W) of a map of one channel.

    Args:
        stored: what `read_stored` gave. Pictures in grey may be stored in colours.
        name: what messages call it.
        what: what messages call the map, "a depth map".

    Raises:
        InputError: several channels that differ, transparent pixels, another shape, or NaN.
    """
    if isinstance(stored, Image.Image):
        return _grey_numbers(stored, name, what)
    values = stored[..., 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
    if values.ndim != 2:
        raise InputError(f"{name}: an array of shape {stored.shape}; {what} has one channel, (H, W).")
    _check_finite(values, name)
    return values


def marked_as(stored: Image.Image | np.ndarray, modality: str) -> bool:
    """Whether a PNG says that its pixels are the values of that modality."""
    return isinstance(stored, Image.Image) and _info(stored).get(MODALITY_KEY) == modality


def stored_legend(stored: Image.Image | np.ndarray, name: str) -> str | None:
    """The legend in the text of a PNG, as JSON. Raises InputError where it is no text."""
    legend = _info(stored).get(CLASSES_KEY) if isinstance(stored, Image.Image) else None
    if legend is not None and not isinstance(legend, str):
        raise InputError(f"{name}: its {CLASSES_KEY} is no text.")
    return legend


def _info(image: Image.Image) -> Mapping[str, Any]:
    return {key: value for key, value in image.info.items() if isinstance(key, str)}


def _file(content: Content, name: str) -> Path | bytes:
    if not isinstance(content, Path | bytes):
        raise InputError(f"{name}: expected a pathlib.Path, bytes or an array, got {type(content).__name__}.")
    return content


def _grey_numbers(image: Image.Image, name: str, what: str) -> np.ndarray:
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        _check_finite(values, name)
        return values
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        hidden = int((rgba[..., 3] < 255).sum())
        if hidden:
            raise InputError(f"{name}: {hidden:,} pixels are transparent; {what} has one number everywhere.")
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    rgb = np.asarray(image.convert("RGB"))
    differ = int((rgb.min(-1) != rgb.max(-1)).sum())
    if differ:
        raise InputError(
            f"{name}: a picture in colours ({differ:,} pixels are not grey); {what} has one channel."
        )
    return rgb[..., 0]


def _check_finite(values: np.ndarray, name: str) -> None:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise InputError(
            f"{name}: {bad:,} of {values.size:,} numbers are NaN or infinite; give every pixel a number."
        )


def _coded_normals(vectors: np.ndarray, name: str) -> np.ndarray:
    _check_finite(vectors, name)
    low, high = float(vectors.min()), float(vectors.max())
    if low < -1 - _RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise InputError(f"{name}: numbers in {low:g}..{high:g}; components of normals lie in -1..1.")
    return np.round(255 * (vectors.clip(-1, 1).astype(np.float32) + 1) / 2).astype(np.uint8)
