"""Assets as pictures for people: thumbnails over HTTP, tiles of a grid.

A depth map stretches to its own range, ids of a segmentation get the colours of their classes; anything else
is shown as the model's reader decodes it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ..errors import InputError, LimitError, NotFoundError
from ..model import ImageLimits, decode_image, id_colors
from ..storage import Asset, AssetFiles

PICTURES = ("rgb", "normal", "depth", "semseg", "canny_edge", "sam_edge")
"""Modalities that are pictures, the one to show first in front."""

LIMITS = ImageLimits()
_PNG = b"\x89PNG\r\n\x1a\n"


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
        LimitError: it is too large a file, or has too many pixels.
        InputError: it is no picture, or damaged.
    """
    name = source.name if isinstance(source, Path) else f"the {modality} picture"
    content = _read(source, name) if isinstance(source, Path) else source
    if modality in ("depth", "semseg") and content.startswith(_PNG):
        shown = _values_as_colors(content, modality, name)
    else:
        shown = decode_image(content, name=name, min_side=size)
    shown.thumbnail(
        (size, size), Image.Resampling.NEAREST if modality == "semseg" else Image.Resampling.LANCZOS
    )
    return shown


def _read(path: Path, name: str) -> bytes:
    try:
        if path.stat().st_size > LIMITS.max_bytes:
            raise LimitError(f"{name}: the file is too large to show, more than {LIMITS.max_bytes:,} bytes.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}).") from error


def _values_as_colors(content: bytes, modality: str, name: str) -> Image.Image:
    """Numbers in a PNG as something to look at."""
    try:
        with PngImagePlugin.PngImageFile(io.BytesIO(content)) as image:
            if image.width * image.height > LIMITS.max_pixels:
                raise LimitError(f"{name}: {image.width} x {image.height} pixels are too many to show.")
            image.load()
            if modality == "semseg" and image.mode in ("P", "RGB", "RGBA"):  # painted, or with a palette
                return image.convert("RGB")
            values = np.asarray(image if image.mode == "L" or image.mode[0] == "I" else image.convert("L"))
    except LimitError:
        raise
    except Exception as error:  # a damaged file may fail anywhere in a decoder, in any way
        raise InputError(f"{name}: the picture is damaged ({error}).") from error
    if modality == "semseg":
        return Image.fromarray(id_colors()[values.astype(np.uint8)])
    low, high = np.percentile(values, (1, 99))
    scaled = (values - low) / max(high - low, 1e-9) * 255
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8)).convert("RGB")
