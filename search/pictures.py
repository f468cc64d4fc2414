"""Assets as pictures for people: thumbnails over HTTP, tiles of a grid.

A depth map stretches to its own range, labels of a segmentation get colours; anything else is shown as it is.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError, LimitError, NotFoundError
from ..storage import Asset, AssetFiles

PICTURES = ("rgb", "normal", "depth", "semseg", "canny_edge", "sam_edge")
"""Modalities that are pictures, the one to show first in front."""

MAX_PIXELS = 80_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")


def file_of(asset: Asset, files: AssetFiles) -> Path:
    """Where an asset's file lies.

    Raises:
        NotFoundError: the asset is a value, or its file is gone.
    """
    if asset.path is None and asset.sha256 is None:
        raise NotFoundError(
            f"The {asset.modality} of this item is a value, not a file.", code="media.missing"
        )
    path = Path(asset.path) if asset.path is not None else files.path(asset.sha256 or "")
    if not path.is_file():  # also refuses pipes and devices put in its place
        raise NotFoundError(
            f"The file of this {asset.modality} is no longer where it was indexed; index its folder again.",
            code="media.missing",
        )
    return path


def shown_asset(assets: Sequence[Asset]) -> Asset | None:
    """The asset that shows an item best; None where it has no picture."""
    by_modality = {asset.modality: asset for asset in assets if asset.value is None}
    return next((by_modality[modality] for modality in PICTURES if modality in by_modality), None)


def thumbnail(source: Path | bytes, modality: str, size: int) -> Image.Image:
    """A picture from its file, upright, in RGB, within `size` x `size` pixels.

    Raises:
        LimitError: it has more than 80 million pixels.
        InputError: it is no picture, or damaged.
    """
    name = source.name if isinstance(source, Path) else f"the {modality} picture"
    try:
        opened = source.open("rb") if isinstance(source, Path) else io.BytesIO(source)
        with opened as file, Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise LimitError(f"{name}: {image.width} x {image.height} pixels are too many to show.")
            image.draft("RGB", (2 * size, 2 * size))  # a JPEG is decoded near the size that is needed
            upright = ImageOps.exif_transpose(image)
            if modality == "semseg":
                upright.thumbnail((size, size), Image.Resampling.NEAREST)
                return _colored_labels(upright)
            if upright.mode.startswith(("I", "F")):
                upright = _stretched(upright)
            shown = upright.convert("RGB")
            shown.thumbnail((size, size), Image.Resampling.LANCZOS)
            return shown
    except LimitError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not a picture of a known format.") from error
    except Exception as error:  # a damaged file may fail anywhere in a decoder, in any way
        raise InputError(f"{name}: the picture cannot be read ({error}).") from error


def _stretched(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    low, high = np.percentile(values, (1, 99))
    scaled = (values - low) / max(high - low, 1e-9) * 255
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def _colored_labels(image: Image.Image) -> Image.Image:
    labels = np.asarray(image.convert("L") if image.mode not in ("L", "P") else image)
    return Image.fromarray(_label_colors()[labels])


def _label_colors() -> NDArray[Any]:
    """(256, 3) uint8: neighbouring labels lie far apart on the colour wheel (steps of the golden angle)."""
    wheel = [
        colorsys.hsv_to_rgb(i * 0.618 % 1, 0.45 + 0.4 * (i % 3) / 2, 0.95 - 0.1 * (i % 4)) for i in range(256)
    ]
    colors = (np.array(wheel) * 255).astype(np.uint8)
    colors[[0, 255]] = (30, 30, 30)  # nothing, unknown
    return colors
