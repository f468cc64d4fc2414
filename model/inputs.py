"""What people give (files, uploads, values) to what a model reads (the values of `values.py`).

Everything from outside is checked here and in `readers/`; after that, arrays are trusted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError, ModelError
from .classes import COCO_CLASSES
from .conversions import picture_metadata, picture_palette
from .images import ImageLimits, array_image, decode_image, is_image
from .modalities import RAW_NAMES, Modality
from .readers.content import Content, decode_text, read_bytes, read_file
from .readers.depth import read_depth
from .readers.edges import read_edges
from .readers.features import read_features, read_t5, read_vector
from .readers.instances import read_instances
from .readers.labels import read_semseg
from .readers.pictures import read_normal, read_rgb
from .readers.poses import read_poses
from .readers.texts import SPELT, spell
from .tokenizers.text import TextTokenizer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputLimits:
    """What is refused before it is parsed.

    Attributes:
        image: limits of pictures, and of maps in array files.
        max_text_bytes: size of a text, or of a JSON file of boxes, statistics or colours.
        max_data_bytes: size of a file of features, poses or instances, and of its arrays in memory.
    """

    image: ImageLimits = field(default_factory=ImageLimits)
    max_text_bytes: int = 2**20
    max_data_bytes: int = 2**24


class InputReader:
    """Reads values of the modalities of one model. Thread-safe, no torch.

    Args:
        modalities: by the user's name (`rgb`, `caption`, ...), the rows of the table that the model takes.
        tokenizer: the model's text tokenizer; None for a model without text.
        limits: what to refuse.
        classes: names of the model's classes of `semseg`; those of COCO where empty.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        tokenizer: TextTokenizer | None,
        limits: InputLimits | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        self._modalities = modalities
        self._tokenizer = tokenizer
        self._limits = limits or InputLimits()
        self._classes = classes or COCO_CLASSES

    def read(self, modality: str, content: Content) -> np.ndarray:
        """Turn one value into the model's input.

        Args:
            modality: the user's name for it.
            content: path or bytes of a file, or the parsed value; docs/formats.md has the table of what each
                modality takes. A text is a caption, JSON or colours, never a path.

        Returns:
            As the table of `values.py` says; of texts and what is spelt as text, token ids int32 (L,), cut at
            the modality's limit. Pictures and maps are the central square at the model's size.

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
        if row.reads_as in SPELT:
            return self._read_text(row, content, name)
        return self._read_data(row, content, name)

    def _read_data(self, row: Modality, content: Content, name: str) -> np.ndarray:
        limits, max_bytes = self._limits.image, self._limits.max_data_bytes
        match row.reads_as:
            case "rgb":
                return read_rgb(content, name=name, row=row, limits=limits)
            case "depth":
                return read_depth(content, name=name, row=row, limits=limits)
            case "normal":
                return read_normal(content, name=name, row=row, limits=limits)
            case "semseg":
                return read_semseg(content, name=name, row=row, limits=limits, classes=self._classes)
            case "canny_edge" | "sam_edge":
                return read_edges(content, name=name, row=row, limits=limits)
            case "clip" | "dinov2" | "imagebind":
                return read_features(content, name=name, row=row, max_bytes=max_bytes)
            case "dinov2_global" | "imagebind_global":
                return read_vector(content, name=name, row=row, max_bytes=max_bytes)
            case "t5_caption":
                return read_t5(content, name=name, row=row, max_bytes=max_bytes)
            case "human_poses":
                return read_poses(content, name=name, row=row, max_bytes=max_bytes)
            case "sam_instance":
                return read_instances(content, name=name, row=row, max_bytes=max_bytes)
            case _:
                raise ModelError(f"No reader for {row.raw!r}; known are {', '.join(RAW_NAMES)}.")

    def _read_text(self, row: Modality, content: Content, name: str) -> np.ndarray:
        assert self._tokenizer is not None
        assert row.vocab_size is not None
        text = spell(row.reads_as, self._parsed(row, content, name), name)
        ids = self._tokenizer.encode(text, max_tokens=row.max_tokens)
        if not len(ids):
            raise InputError(
                f"{name}: there is nothing to read in it; leave {row.raw} out.", code="input.empty"
            )
        # A small model's table may end before the vocabulary does: what lies beyond is unknown to it.
        return np.where(ids < row.vocab_size, ids, np.int32(self._tokenizer.unk_id))

    def _parsed(self, row: Modality, content: Content, name: str) -> object:
        """Text of a file or a plain value; pictures give what can be measured of them."""
        measure = _MEASURE.get(row.reads_as)
        if isinstance(content, np.ndarray):
            if measure and content.ndim == 3:
                return measure(array_image(content, name=name))
            return content.tolist()
        if not isinstance(content, Path | bytes):
            return content
        limits, max_bytes = self._limits.image, self._limits.max_text_bytes
        if isinstance(content, Path):
            content = read_file(content, 1 + max(limits.max_bytes if measure else 0, max_bytes), name)
        if measure and is_image(content):
            return measure(decode_image(content, name=name, limits=limits))
        return decode_text(read_bytes(content, max_bytes, name), name)


def normalize_pixels(pixels: np.ndarray) -> np.ndarray:
    """Standardise uint8 (B, H, W, 3) with the statistics of ImageNet to float32 (B, 3, H, W)."""
    scale = 1 / (255 * np.asarray(IMAGENET_STD, np.float32))
    shift = np.asarray(IMAGENET_MEAN, np.float32) / np.asarray(IMAGENET_STD, np.float32)
    return np.ascontiguousarray((pixels * scale - shift).transpose(0, 3, 1, 2))


_MEASURE: Mapping[str, Callable[[Image.Image], object]] = {
    "color_palette": picture_palette,
    "metadata": picture_metadata,
}
"""What a photo can stand for besides itself, of the modalities that are spelt as texts."""
