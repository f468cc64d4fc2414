"""One sample's files to arrays of one size: colours, depth in its unit, class ids."""

from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from ..images import ImageLimits, decode_image
from ..readers.content import read_bytes
from ..readers.pictures import one_channel, read_stored
from .config import DataConfig
from .samples import TransferSample

IGNORED = -1
"""Label of pixels that do not count."""

_NO_LABEL = 255  # in files, as everywhere
_ASPECT_SLACK = 0.02


def read_arrays(sample: TransferSample, data: DataConfig) -> dict[str, np.ndarray]:
    """Read the files of a sample; safe in threads and processes.

    Returns:
        `rgb` uint8 (H, W, 3), `depth` float32 (H, W) with 0 where it is unknown, `semseg` int32 (H, W) with
        IGNORED; maps of another size than the picture are brought to it, each pixel taking the nearest.

    Raises:
        InputError, LimitError: a file is damaged, has an unknown id or another shape than its picture.
    """
    limits = ImageLimits()
    path = sample.files["rgb"]
    picture = decode_image(read_bytes(path, limits.max_bytes, str(path)), name=str(path), limits=limits)
    arrays: dict[str, np.ndarray] = {"rgb": np.asarray(picture)}
    if "depth" in sample.files:
        arrays["depth"] = _same_size(_depth(sample.files["depth"], data), picture.size, sample.files["depth"])
    if "semseg" in sample.files:
        arrays["semseg"] = _same_size(
            _labels(sample.files["semseg"], data), picture.size, sample.files["semseg"]
        )
    return arrays


def _depth(path: Path, data: DataConfig) -> np.ndarray:
    stored = read_stored(path, name=str(path), limits=ImageLimits())
    depth = one_channel(stored, str(path), "a depth map").astype(np.float32) * np.float32(data.depth_scale)
    if depth.min() < 0 or not np.isfinite(depth).all():
        raise InputError(f"{path}: depths in {depth.min():g}..{depth.max():g}; none is below 0.")
    return depth


def _labels(path: Path, data: DataConfig) -> np.ndarray:
    stored = read_stored(path, name=str(path), limits=ImageLimits())
    if isinstance(stored, Image.Image) and stored.mode == "P":
        ids = np.asarray(stored)
    else:
        ids = one_channel(stored, str(path), "a label map")
    if ids.dtype.kind not in "bui":
        raise InputError(f"{path}: {ids.dtype}; ids of classes are whole numbers.")
    first, count = data.first_class, data.num_classes
    assert count is not None
    labels = ids.astype(np.int32) - first
    nothing = (ids == _NO_LABEL) | (labels == -1)
    unknown = ((labels < 0) | (labels >= count)) & ~nothing
    if unknown.any():
        raise InputError(
            f"{path}: {int(unknown.sum()):,} pixels have id {ids[unknown][0]}; classes are "
            f"{first}..{first + count - 1}, {_NO_LABEL}{' and 0 are' if first else ' is'} none."
        )
    return np.where(nothing, np.int32(IGNORED), labels)


def _same_size(values: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:
    width, height = size
    if values.shape == (height, width):
        return values
    if abs(values.shape[1] / values.shape[0] - width / height) > _ASPECT_SLACK * width / height:
        raise InputError(
            f"{path}: {values.shape[1]} x {values.shape[0]} pixels, its picture has {width} x {height}; "
            "both show the same view in the same proportions."
        )
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.NEAREST))
