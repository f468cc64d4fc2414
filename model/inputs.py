"""What people give (files, uploads, values) to what a model reads (pixels, token ids).

Everything from outside is checked here; after that, arrays are trusted. Texts are spelt as the authors of the
published models do for retrieval: no `[EOS]` ends a condition; metadata ends in `[S_1]`, "there may be more",
since nobody gives all of it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError, ModelError
from .images import ImageLimits, array_image, crop_resize, decode_image
from .modalities import Modality
from .readers.content import Content, decode_text, parse_json, parse_number, read_bytes
from .tokenizers.sequences import METADATA, Box, boxes_to_string, metadata_to_string, palette_to_string
from .tokenizers.text import TextTokenizer, plain_text

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_COLORS = 7
"""Colours in a palette; the published models saw 1 to 7."""

MIN_SCORE = 0.6
"""Detections that carry a score below this are left out, as in training."""

# A JPEG is decoded at a fraction of its size, at least this many times the model's: prepared pixels differ
# from those of the whole picture by 0.24 of 255 on average, 2 at most (12 megapixels, 1/f noise).
_OVERSAMPLING = 3
_MAX_LABEL_CHARS = 200
_BOX_SLACK = 1e-3  # rounding of whoever wrote the file


@dataclass(frozen=True)
class InputLimits:
    """What is refused before it is parsed.

    Attributes:
        image: limits of image files.
        max_text_bytes: size of a text or JSON file.
    """

    image: ImageLimits = field(default_factory=ImageLimits)
    max_text_bytes: int = 2**20


class InputReader:
    """Reads values of the modalities of one model. Thread-safe, no torch.

    Args:
        modalities: by the user's name (`rgb`, `caption`, ...), the rows of the table that the model takes.
        tokenizer: the model's text tokenizer; None for a model without text.
        limits: what to refuse.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        tokenizer: TextTokenizer | None,
        limits: InputLimits | None = None,
    ) -> None:
        self._modalities = modalities
        self._tokenizer = tokenizer
        self._limits = limits or InputLimits()

    def read(self, modality: str, content: Content) -> np.ndarray:
        """Turn one value into the model's input.

        Args:
            modality: the user's name for it.
            content: `rgb`: path, bytes of a file, or pixels uint8 (H, W, 3). `caption`: text, or path or
                bytes of a UTF-8 file. `det`: list of `{"box": [x0, y0, x1, y1], "label": "dog"}`, or
                `{"instances": [...], "width": W, "height": H}` (`parse_boxes`). `metadata`: `{name: number}`.
                `color_palette`: 1 to 7 of `"#rrggbb"` or `[r, g, b]`. These three also as path, bytes or text
                of a JSON file; a palette also as hex colours in a text.

        Returns:
            `rgb`: uint8 (S, S, 3), the central square at the model's size; others: token ids int32 (L,), cut
            at the modality's limit.

        Raises:
            ModelError: the model does not take this modality.
            InputError: the value cannot be used; the message names file or modality and reason. Code
                `input.empty` where it says nothing (no text, no boxes): leave the modality out.
            LimitError: it is too large.
        """
        row = self._modalities.get(modality)
        if row is None:
            raise ModelError(
                f"This model does not take {modality!r}; it takes {', '.join(self._modalities)}."
            )
        name = str(content) if isinstance(content, Path) else modality
        if row.kind == "pix":
            return self._read_pixels(row, content, name)
        return self._read_sequence(row, content, name)

    def _read_pixels(self, row: Modality, content: Content, name: str) -> np.ndarray:
        assert row.image_size is not None
        if isinstance(content, np.ndarray):
            image = array_image(content, name=name)
        elif isinstance(content, Path | bytes):
            limits = self._limits.image
            data = read_bytes(content, limits.max_bytes, name)
            image = decode_image(data, name=name, limits=limits, min_side=_OVERSAMPLING * row.image_size)
        else:
            raise InputError(
                f"{name}: expected a pathlib.Path, bytes or an array, got {type(content).__name__}."
            )
        return crop_resize(image, row.image_size)

    def _read_sequence(self, row: Modality, content: Content, name: str) -> np.ndarray:
        assert self._tokenizer is not None
        assert row.vocab_size is not None
        if isinstance(content, Path | bytes):
            content = decode_text(read_bytes(content, self._limits.max_text_bytes, name), name)
        elif isinstance(content, np.ndarray):
            content = content.tolist()
        text = _SPELL[row.raw](content, name)
        ids = self._tokenizer.encode(text, max_tokens=row.max_tokens)
        if not len(ids):
            raise InputError(
                f"{name}: there is nothing to read in it; leave {row.raw} out.", code="input.empty"
            )
        # A small model's table may end before the vocabulary does: what lies beyond is unknown to it.
        return np.where(ids < row.vocab_size, ids, np.int32(self._tokenizer.unk_id))


def normalize_pixels(pixels: np.ndarray) -> np.ndarray:
    """Standardise uint8 (B, H, W, 3) with the statistics of ImageNet to float32 (B, 3, H, W)."""
    scale = 1 / (255 * np.asarray(IMAGENET_STD, np.float32))
    shift = np.asarray(IMAGENET_MEAN, np.float32) / np.asarray(IMAGENET_STD, np.float32)
    return np.ascontiguousarray((pixels * scale - shift).transpose(0, 3, 1, 2))


def parse_boxes(value: object, name: str = "det") -> list[Box]:
    """Check boxes.

    Args:
        value: list of `{"box": [x0, y0, x1, y1], "label": str}`, optionally with `"score"`; coordinates are
            fractions 0..1 of the square that the model sees, the central one of the picture. Or
            `{"instances": [...], "width": W, "height": H}`: fractions of a picture of that size, from which
            boxes are moved into the central square. `boxes` and `class_name` are taken for `box` and `label`.
        name: what messages call it.

    Raises:
        InputError: something else, or no boxes left.
    """
    size = None
    if isinstance(value, Mapping):
        size = [parse_number(value[key], f"{name}: {key}") for key in ("width", "height") if key in value]
        value = value.get("instances")
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or (size and (len(size) != 2 or min(size) <= 0))
    ):
        raise InputError(f'{name}: expected a list of {{"box": [x0, y0, x1, y1], "label": "dog"}}.')
    found = [_parse_box(item, f"{name}: box {i}") for i, item in enumerate(value)]
    boxes = [box for box in found if box is not None]
    if size:
        boxes = [moved for box in boxes if (moved := _into_square(box, *size)) is not None]
    if not boxes:
        raise InputError(f"{name}: holds no boxes to use; leave det out.", code="input.empty")
    return boxes


def parse_metadata(value: object, name: str = "metadata") -> dict[str, float]:
    """Check statistics by name and return them in the order of the table. Raises InputError."""
    if not isinstance(value, Mapping):
        raise InputError(f'{name}: expected an object such as {{"brightness": 120}}.')
    unknown = [str(key) for key in value if key not in METADATA]
    if unknown:
        raise InputError(f"{name}: unknown {', '.join(unknown[:5])}; known are {', '.join(METADATA)}.")
    if not value:
        raise InputError(f"{name}: holds no numbers; leave metadata out.", code="input.empty")
    return {key: parse_number(value[key], f"{name}: {key}") for key in METADATA if key in value}


def parse_palette(value: object, name: str = "color_palette") -> list[tuple[int, int, int]]:
    """Check 1 to 7 colours, `"#rrggbb"` or `[r, g, b]` with 0..255 each. Raises InputError."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f'{name}: expected a list of "#rrggbb" or [r, g, b].')
    if not 1 <= len(value) <= MAX_COLORS:
        code = None if len(value) else "input.empty"
        raise InputError(f"{name}: expected 1 to {MAX_COLORS} colours, got {len(value)}.", code=code)
    return [_parse_color(item, f"{name}: colour {i}") for i, item in enumerate(value)]


def _spell_caption(content: object, name: str) -> str:
    if not isinstance(content, str):
        raise InputError(f"{name}: expected text, got {type(content).__name__}.")
    return plain_text(content)


def _spell_boxes(content: object, name: str) -> str:
    return boxes_to_string(parse_boxes(_from_json(content, name), name))


def _spell_metadata(content: object, name: str) -> str:
    return metadata_to_string(parse_metadata(_from_json(content, name), name)) + " [S_1]"


def _spell_palette(content: object, name: str) -> str:
    if isinstance(content, str) and not content.lstrip().startswith("["):
        content = re.split(r"[\s,;]+", content.strip()[: 16 * MAX_COLORS]) if content.strip() else []
    return palette_to_string(parse_palette(_from_json(content, name), name))


_SPELL: Mapping[str, Callable[[object, str], str]] = {
    "caption": _spell_caption,
    "det": _spell_boxes,
    "metadata": _spell_metadata,
    "color_palette": _spell_palette,
}

READABLE = frozenset({"rgb", *_SPELL})
"""The user's names of modalities that can be read."""


def _from_json(content: object, name: str) -> object:
    return parse_json(content, name) if isinstance(content, str) else content


def _parse_box(item: object, name: str) -> Box | None:
    """Check one box; None where its score is too low."""
    if not isinstance(item, Mapping):
        raise InputError(f'{name}: expected {{"box": [x0, y0, x1, y1], "label": "dog"}}.')
    corners = item.get("box", item.get("boxes"))
    label = item.get("label", item.get("class_name"))
    if not isinstance(label, str) or not label.strip() or len(label) > _MAX_LABEL_CHARS:
        raise InputError(f"{name}: label must be a text of 1 to {_MAX_LABEL_CHARS} characters.")
    if isinstance(corners, np.ndarray):
        corners = corners.tolist()
    if not isinstance(corners, Sequence) or isinstance(corners, str) or len(corners) != 4:
        raise InputError(f"{name}: expected four numbers [x0, y0, x1, y1].")
    x0, y0, x1, y1 = (parse_number(u, f"{name}: coordinate") for u in corners)
    if min(x0, y0) < -_BOX_SLACK or max(x1, y1) > 1 + _BOX_SLACK or x0 > x1 or y0 > y1:
        raise InputError(
            f"{name}: [{x0:g}, {y0:g}, {x1:g}, {y1:g}] is no rectangle within 0..1; "
            "divide pixels by the picture's width and height, and give x0 <= x1, y0 <= y1."
        )
    if "score" in item and parse_number(item["score"], f"{name}: score") < MIN_SCORE:
        return None
    label = " ".join(plain_text(label).split())
    return Box(*(min(max(u, 0.0), 1.0) for u in (x0, y0, x1, y1)), label=label)


def _into_square(box: Box, width: float, height: float) -> Box | None:
    """Move a box from a picture's frame into that of its central square; None where nothing of it is left."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    x0, x1 = (min(max((x * width - left) / side, 0.0), 1.0) for x in (box.x0, box.x1))
    y0, y1 = (min(max((y * height - top) / side, 0.0), 1.0) for y in (box.y0, box.y1))
    return Box(x0, y0, x1, y1, box.label) if x0 < x1 and y0 < y1 else None


def _parse_color(item: object, name: str) -> tuple[int, int, int]:
    if isinstance(item, str) and re.fullmatch(r"#?[0-9a-fA-F]{6}", item.strip()):
        red, green, blue = bytes.fromhex(item.strip().removeprefix("#"))
        return red, green, blue
    if isinstance(item, np.ndarray):
        item = item.tolist()
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 3:
        channels = [parse_number(channel, f"{name}: channel") for channel in item]
        if all(0 <= channel <= 255 and channel == int(channel) for channel in channels):
            red, green, blue = map(int, channels)
            return red, green, blue
    raise InputError(f'{name}: expected "#rrggbb" or [r, g, b] with 0..255 each, got {str(item)[:40]!r}.')
