"""Image files from anywhere to upright 8-bit RGB: a short list of formats, limits before decoding.

Pillow's own `Image.open` is not used: it tries every format it knows and answers large pictures with warnings
that cannot be silenced safely in one thread. The format is read from the first bytes, the size from the
header.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ..errors import InputError, LimitError

FORMATS = "JPEG, PNG, WebP, TIFF, BMP and GIF (first frame)"

_OPENERS: tuple[tuple[bytes, Callable[[BinaryIO], ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
)
_WHITE = (255, 255, 255)
_UPRIGHT = {  # EXIF orientation: what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageLimits:
    """What is refused before it is decoded.

    Attributes:
        max_bytes: size of the file.
        max_pixels: width times height; decoding takes about 4 bytes for each.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 80_000_000


def decode_image(
    content: bytes, *, name: str = "image", limits: ImageLimits | None = None, min_side: int | None = None
) -> Image.Image:
    """Decode one image file to an upright `RGB` picture.

    EXIF rotation is applied, transparency is laid over white, 16-bit grey keeps its upper 8 bits, CMYK is
    converted without a colour profile, animations give their first frame. Thread-safe.

    Args:
        content: bytes of the file.
        name: what messages call it.
        limits: the defaults where None.
        min_side: a JPEG may come at 1/2, 1/4 or 1/8 of its size as long as both sides have this many pixels
            and its central square falls on whole ones; that takes a sixth of the time for a photo.

    Raises:
        LimitError: more bytes or pixels than `limits` allow.
        InputError: empty, another format, damaged, or without a meaning in 8 bits (floating point).
    """
    return _decode(content, name, limits or ImageLimits(), lambda image: to_rgb(image, name=name), min_side)


def decode_stored(content: bytes, *, name: str = "image", limits: ImageLimits | None = None) -> Image.Image:
    """Decode one image file to an upright picture of the numbers it stores, for maps that are no photos.

    Its `mode` says which: palette pictures keep their indices (`P`), 16 bits come as `I;16` (or `I`),
    floating point as `F`. `info` holds the text chunks of a PNG, `format` is as Pillow's. Only the first
    frame counts. Thread-safe.

    Raises:
        LimitError, InputError: as `decode_image`, except that every kind of number is read.
    """
    return _decode(content, name, limits or ImageLimits(), _keep)


def is_image(content: bytes) -> bool:
    """Whether a file begins as one of the formats that are read."""
    return _find_opener(content) is not None


def picture_size(file: BinaryIO) -> tuple[int, int] | None:
    """Upright width and height that a picture's header tells; None where it is no picture that is read."""
    opener = _find_opener(file.read(16))
    if opener is None:
        return None
    file.seek(0)
    try:
        with opener(file) as image:
            width, height = image.size
            is_turned = not isinstance(image, TiffImagePlugin.TiffImageFile) and _orientation(image) >= 5
            return (height, width) if is_turned else (width, height)
    except Exception:  # damaged: whoever decodes it says how
        return None


def to_rgb(
    image: Image.Image, *, name: str = "image", background: tuple[int, int, int] = _WHITE
) -> Image.Image:
    """Turn a picture of any mode into `RGB`, as `decode_image` does; transparency lies over `background`.

    Raises:
        InputError: floating point, or integers beyond 16 bits.
    """
    if image.mode == "F":
        raise InputError(f"{name}: floating-point pixels have no fixed range; save it with 8 or 16 bits.")
    if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise InputError(f"{name}: pixels go beyond 16 bits; save it with 8 or 16 bits.")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, background)
        rgb.paste(rgba, mask=rgba.getchannel("A"))
        return rgb
    return image.convert("RGB")


def array_image(pixels: np.ndarray, *, name: str = "image") -> Image.Image:
    """Make an `RGB` picture of an array: uint8 `(H, W)`, `(H, W, 3)` or `(H, W, 4)` (laid over white).

    Raises:
        InputError: another type or shape, or no pixels.
    """
    if (
        pixels.dtype != np.uint8
        or pixels.size == 0
        or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4)))
    ):
        raise InputError(f"{name}: expected pixels uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}.")
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), name=name)


def crop_resize(image: Image.Image, size: int) -> np.ndarray:
    """Cut the central square of side min(W, H) and resize it (bicubic) to uint8 `(size, size, 3)`.

    The preparation of the published models.
    """
    if image.width != image.height:
        # Cutting before resizing keeps pixels outside the square out of the filter.
        image = Image.fromarray(central_square(np.asarray(image)))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def central_square(pixels: np.ndarray) -> np.ndarray:
    """The central square of side min(W, H) of `(H, W, ...)`, as a view."""
    height, width = pixels.shape[:2]
    side = min(width, height)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return pixels[top : top + side, left : left + side]


def nearest_square(values: np.ndarray, size: int) -> np.ndarray:
    """The part of a map (H, W, ...) that `crop_resize` keeps of its picture, as (size, size, ...).

    Every pixel takes the nearest value, as Pillow finds it: labels, validity and depth at an edge do not mix.
    """
    square = central_square(values)
    line = Image.fromarray(np.arange(len(square), dtype=np.int32)[None])
    places = np.asarray(line.resize((size, 1), Image.Resampling.NEAREST))[0]
    return square[np.ix_(places, places)]


def _find_opener(content: bytes) -> Callable[[BinaryIO], ImageFile.ImageFile] | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    return next((opener for magic, opener in _OPENERS if content.startswith(magic)), None)


def _decode(
    content: bytes,
    name: str,
    limits: ImageLimits,
    convert: Callable[[Image.Image], Image.Image],
    min_side: int | None = None,
) -> Image.Image:
    if not content:
        raise InputError(f"{name}: the file is empty; give an image ({FORMATS}).", code="input.empty")
    if len(content) > limits.max_bytes:
        raise LimitError(
            f"{name}: {len(content):,} bytes, the limit is {limits.max_bytes:,}; give a smaller file."
        )
    opener = _find_opener(content)
    if opener is None:
        raise InputError(f"{name}: not an image of a known format; {FORMATS} are read.")
    try:
        return _decode_with(opener, content, name, limits, convert, min_side)
    except InputError:
        raise
    except Exception as error:  # a damaged file may fail anywhere in a decoder, in any way
        cut_short = isinstance(error, struct.error | IndexError | EOFError)
        reason = "it ends too soon" if cut_short else str(error) or type(error).__name__
        raise InputError(
            f"{name}: the image is damaged or of a kind that is not read ({reason}); {FORMATS} with 1 to 4 "
            "channels are read."
        ) from error


def _decode_with(
    opener: Callable[[BinaryIO], ImageFile.ImageFile],
    content: bytes,
    name: str,
    limits: ImageLimits,
    convert: Callable[[Image.Image], Image.Image],
    min_side: int | None,
) -> Image.Image:
    if opener is GifImagePlugin.GifImageFile:
        _check_pixels(_gif_size(content), name, limits)
    with opener(io.BytesIO(content)) as image:
        _check_pixels(image.size, name, limits)
        if min_side is not None:
            image.draft(None, _reduced(image.size, min_side))  # does nothing to other formats
        image.load()
        upright = (
            None if isinstance(image, TiffImagePlugin.TiffImageFile) else _UPRIGHT.get(_orientation(image))
        )
        converted = convert(image)
        if upright is not None:
            turned = converted.transpose(upright)
            turned.format = converted.format
            return turned
        return converted


def _keep(image: Image.Image) -> Image.Image:
    kept = image.copy()
    kept.format = image.format
    return kept


def _reduced(size: tuple[int, int], min_side: int) -> tuple[int, int]:
    """The smallest size that a JPEG can be decoded at so that its central square stays where it was."""
    width, height = size
    for factor in (8, 4, 2):
        is_exact = width % factor == 0 == height % factor and (width - height) % (2 * factor) == 0
        if is_exact and min(size) // factor >= min_side:
            return width // factor, height // factor
    return size


def _check_pixels(size: tuple[int, int], name: str, limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise LimitError(
            f"{name}: {width} x {height} = {width * height:,} pixels, the limit is {limits.max_pixels:,}; "
            "give a smaller picture."
        )


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1..8; 1 where there is none or the block is damaged.

    Pillow's own parser warns about damaged blocks and reads far more than this one number.
    """
    block = image.info.get("exif")
    if not isinstance(block, bytes):
        return 1
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            return 1
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for i in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", block, start + 2 + 12 * i)
            if (tag, kind) == (0x0112, 3):
                return value
    except struct.error:
        pass
    return 1


def _gif_size(content: bytes) -> tuple[int, int]:
    """Width and height a GIF needs: its first frame may reach beyond the screen that its header names."""
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while content[position] == 0x21:  # extension: label, then blocks with their lengths
        position += 2
        while content[position]:
            position += content[position] + 1
        position += 1
    if content[position] != 0x2C:
        raise ValueError("no frame")
    left, top, frame_width, frame_height = struct.unpack_from("<4H", content, position + 1)
    return max(width, left + frame_width), max(height, top + frame_height)
