"""The table of modalities that 4M models read and write.

Rows are keyed by the name that checkpoints use (`rgb@224`, `tok_depth@224`, `caption`, ...); `raw` is the
name a user says (`rgb`, `depth`, `caption`). Sources: arXiv 2312.06647 and 2406.09406, and the published
configurations.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from ..errors import ModelError

Kind = Literal["pix", "img", "seq", "emb"]
Positions = Literal["1d", "2d", "learned"]

SEQUENCE_POSITIONS = 512
"""Rows of every 1-D position table in a checkpoint, whatever the modality's own limit."""

TEXT_VOCAB = 30_000
"""Ids of the WordPiece tokenizer. Modalities share the ids; each owns its embedding tables."""

_IMAGEBIND_LICENSE = "ImageBind, CC-BY-NC-4.0, non-commercial use only"
_SMPL_LICENSE = "SMPL body model, non-commercial research only"


@dataclass(frozen=True)
class Modality:
    """What a model needs to know about one modality.

    Attributes:
        name: key in configurations and state dicts.
        raw: the user's name for the same kind of data; several rows may share it (`rgb@224`, `tok_rgb@224`).
        kind: `pix` raw pixels, `img` a grid of discrete tokens, `seq` text-like tokens, `emb` a sequence of
            continuous vectors. `pix` and `emb` exist as inputs only.
        max_tokens: tokens of the grid, or the longest sequence.
        positions: `2d` and `1d` are fixed sine-cosine tables, `learned` a parameter.
        vocab_size: number of token ids; None for `pix` and `emb`.
        grid: rows and columns of tokens; None for sequences.
        image_size: side in pixels of the square image that the grid covers; None for sequences.
        patch_size: side in pixels of one token; None for sequences.
        channels: width of one raw element: 3 for RGB, 4096 for T5 states, 768 for a DINOv2 vector; None for
            text.
        decoder_positions: positions a sequence target can tell apart; later ones repeat position 0.
        tokenizer: what makes tokens: a hub repository, `wordpiece`, or both joined by ` + `; None for raw.
        raw_format: what the user gives.
        license: of what the published tokenizer was made from, on top of the checkpoint's own licence.
        like: of a modality that a user added, the raw name of the known one that its values are like.
    """

    name: str
    raw: str
    kind: Kind
    max_tokens: int
    positions: Positions
    vocab_size: int | None = None
    grid: tuple[int, int] | None = None
    image_size: int | None = None
    patch_size: int | None = None
    channels: int | None = None
    decoder_positions: int | None = None
    tokenizer: str | None = None
    raw_format: str = ""
    license: str | None = None
    like: str | None = None

    @cached_property
    def id(self) -> int:
        """Number that labels this modality's tokens, 0..32767: sha256 of the name modulo 2**15."""
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % 2**15

    @property
    def is_target(self) -> bool:
        """Whether a model can predict it: it consists of token ids."""
        return self.vocab_size is not None

    @property
    def reads_as(self) -> str:
        """The known modality whose readers, tokenizers and values serve this one: itself, or `like`."""
        return self.like or self.raw

    def renamed(self, name: str) -> "Modality":
        """A new modality whose values are like this one's: `tok_thermal@224` like `tok_depth@224`.

        Raises ModelError for a name that is taken, or that says another size than this one's.
        """
        base, at, size = name.partition("@")
        raw = base.removeprefix("tok_")
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", raw) or raw in RAW_NAMES or raw in ALIASES:
            raise ModelError(
                f"{name!r} cannot name a new modality: take small letters, digits and _, and none of "
                f"{', '.join(RAW_NAMES)}."
            )
        if (base.startswith("tok_"), at + size) != (self.name.startswith("tok_"), self._size):
            prefix = "tok_" if self.name.startswith("tok_") else ""
            raise ModelError(
                f"New modality {name!r} is like {self.name!r}: call it {prefix + raw + self._size!r}."
            )
        return replace(self, name=name, raw=raw, like=self.raw, tokenizer=None)

    @property
    def _size(self) -> str:
        return "".join(self.name.partition("@")[1:])

    def with_vocab(self, vocab_size: int) -> "Modality":
        """The same modality with another number of token ids (at least 1). Raises ModelError without ids."""
        if self.vocab_size is None:
            raise ModelError(f"Modality {self.name!r} has no vocabulary to override; it is read as it is.")
        if vocab_size < 1:
            raise ModelError(f"Modality {self.name!r} needs a vocabulary of 1 id or more, got {vocab_size}.")
        return replace(self, vocab_size=vocab_size)

    def at_size(self, image_size: int, patch_size: int) -> "Modality":
        """The same modality over a square of `image_size` pixels, one token per `patch_size` pixels.

        Raises ModelError when the patches do not fill the square.
        """
        base, _, size = self.name.partition("@")
        if not size:
            raise ModelError(f"Modality {self.name!r} has no resolution to change.")
        if not 0 < patch_size <= image_size or image_size % patch_size:
            raise ModelError(
                f"Modality '{base}@{image_size}': patches of {patch_size} pixels do not fill a side of "
                f"{image_size}; set patch_size in the configuration to a divisor of {image_size}."
            )
        side = image_size // patch_size
        return replace(
            self,
            name=f"{base}@{image_size}",
            max_tokens=side * side,
            grid=(side, side),
            image_size=image_size,
            patch_size=patch_size,
        )


def _tokenizer(suffix: str) -> str:
    return f"EPFL-VILAB/4M_tokenizers_{suffix}"


def _pixels(image_size: int) -> Modality:
    side = image_size // 16
    return Modality(
        f"rgb@{image_size}",
        "rgb",
        "pix",
        side * side,
        "2d",
        grid=(side, side),
        image_size=image_size,
        patch_size=16,
        channels=3,
        raw_format="image file, or uint8 (H, W, 3)",
    )


def _grid(
    name: str,
    vocab_size: int,
    channels: int,
    tokenizer: str,
    raw_format: str,
    patch_size: int = 16,
    license: str | None = None,
) -> Modality:
    base, _, size = name.partition("@")
    side = int(size) // patch_size
    return Modality(
        name,
        base.removeprefix("tok_"),
        "img",
        side * side,
        "2d",
        vocab_size,
        (side, side),
        int(size),
        patch_size,
        channels,
        tokenizer=_tokenizer(tokenizer),
        raw_format=raw_format,
        license=license,
    )


def _global(name: str, channels: int, tokenizer: str, license: str | None = None) -> Modality:
    # One vector has no layout: its 16 codes sit on a nominal 4 x 4 grid whose positions are learned.
    return Modality(
        name,
        name.removeprefix("tok_"),
        "img",
        16,
        "learned",
        8192,
        (4, 4),
        224,
        56,
        channels,
        tokenizer=_tokenizer(tokenizer),
        raw_format=f"float32 ({channels},), only its direction matters",
        license=license,
    )


def _sequence(
    name: str,
    max_tokens: int,
    raw_format: str,
    decoder_positions: int | None = None,
    tokenizer: str = "wordpiece",
    license: str | None = None,
) -> Modality:
    return Modality(
        name,
        name,
        "seq",
        max_tokens,
        "1d",
        TEXT_VOCAB,
        decoder_positions=decoder_positions or max_tokens,
        tokenizer=tokenizer,
        raw_format=raw_format,
        license=license,
    )


def _image_like(size: int) -> tuple[Modality, ...]:
    """The five tokenized modalities that 4M-7 has at 224 and its super-resolution model also at 448."""
    return (
        _grid(f"tok_rgb@{size}", 16384, 3, "rgb_16k_224-448", "image file, or uint8 (H, W, 3)"),
        _grid(
            f"tok_depth@{size}",
            8192,
            1,
            "depth_8k_224-448",
            "picture of one channel, or array (H, W); larger is farther",
        ),
        _grid(f"tok_normal@{size}", 8192, 3, "normal_8k_224-448", "normals as RGB, or array (H, W, 3)"),
        _grid(
            f"tok_semseg@{size}",
            4096,
            134,
            "semseg_4k_224-448",
            "map of class ids, or painted with a legend",
        ),
        _grid(
            f"tok_clip@{size}", 8192, 512, "CLIP-B16_8k_224-448", "CLIP-B/16 features, float32 (512, h, w)"
        ),
    )


_ROWS = (
    _pixels(224),
    _sequence("caption", 256, "text"),
    _sequence("det", 256, "list of {box: [x0, y0, x1, y1] in 0..1, label}, or COCO JSON"),
    *_image_like(224),
    # 4M-21 adds
    Modality(
        "t5_caption",
        "t5_caption",
        "emb",
        77,
        "1d",
        channels=4096,
        raw_format="T5-XXL encoder states, float32 (L, 4096)",
    ),
    _sequence("metadata", 40, "{name: number}, or a photo"),
    _sequence(
        "human_poses",
        275,
        "people with SMPL's poses, shapes, cameras and boxes",
        decoder_positions=263,
        tokenizer="wordpiece + " + _tokenizer("human-poses_1k_8"),
        license=_SMPL_LICENSE,
    ),
    _sequence("color_palette", 23, "list of '#rrggbb' or [r, g, b], or a photo"),
    _sequence(
        "sam_instance",
        290,
        "outlines of instances: COCO JSON, polygons, or a map of ids",
        tokenizer="wordpiece + " + _tokenizer("sam-instance_1k_64"),
    ),
    _grid("tok_canny_edge@224", 8192, 1, "edge_8k_224-512", "edge map, drawing or photo"),
    _grid("tok_sam_edge@224", 8192, 1, "edge_8k_224-512", "edge map or drawing"),
    _grid(
        "tok_dinov2@224", 8192, 768, "DINOv2-B14_8k_224-448", "DINOv2-B/14 features, float32 (768, h, w)", 14
    ),
    _grid(
        "tok_imagebind@224",
        8192,
        1280,
        "ImageBind-H14_8k_224-448",
        "ImageBind-H/14 features, float32 (1280, h, w)",
        14,
        _IMAGEBIND_LICENSE,
    ),
    _global("tok_dinov2_global", 768, "DINOv2-B14-global_8k_16_224"),
    _global("tok_imagebind_global", 1280, "ImageBind-H14-global_8k_16_224", _IMAGEBIND_LICENSE),
    # the super-resolution model adds
    _pixels(448),
    *_image_like(448),
)

MODALITIES: Mapping[str, Modality] = MappingProxyType({row.name: row for row in _ROWS})
"""Every modality of the published models, by checkpoint name."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "boxes": "det",
        "edges": "canny_edge",
        "instances": "sam_instance",
        "palette": "color_palette",
        "poses": "human_poses",
        "sam_edges": "sam_edge",
    }
)
"""Words that users say for a modality, besides its own name."""

RAW_NAMES: tuple[str, ...] = tuple(dict.fromkeys(row.raw for row in _ROWS))
"""Every modality by the user's name, in the order of the table."""


def raw_name(word: str) -> str:
    """The user's name of a modality from any word for it (`palette`, `color-palette`, `color_palette`).

    Raises ModelError, listing the known names.
    """
    name = word.strip().lower().replace("-", "_")
    name = ALIASES.get(name, name)
    if name not in RAW_NAMES:
        raise ModelError(f"Unknown modality {word!r}. Known: {', '.join(RAW_NAMES)}.")
    return name


MAX_IMAGE_SIZE = 4096


def get_modality(name: str, *, patch_size: int = 16, vocab_size: int | None = None) -> Modality:
    """The modality of that checkpoint name, also at resolutions and vocabularies that were never published.

    Args:
        name: a key of MODALITIES, or the base name of one with another size: `rgb@96`, `tok_depth@512`.
        patch_size: side in pixels of a token at sizes that are not in the table; its rows keep theirs.
        vocab_size: number of token ids in place of the published one.

    Raises:
        ModelError: unknown name (known ones are listed), patches that do not fill the image, or a
            vocabulary for a modality that has none.
    """
    found = MODALITIES.get(name)
    if found is None:
        base, image_size = _split_size(name)
        rows = [row for row in MODALITIES.values() if row.name.partition("@")[0] == base]
        if image_size is None or not rows or rows[0].name == base:
            known = ", ".join(MODALITIES)
            raise ModelError(
                f"Unknown modality {name!r}. Known: {known}; '@' takes other sizes too (rgb@96)."
            )
        found = rows[0].at_size(image_size, patch_size)
    return found if vocab_size is None else found.with_vocab(vocab_size)


def _split_size(name: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\w+)@([1-9][0-9]{0,3})", name)
    if match is None or int(match[2]) > MAX_IMAGE_SIZE:
        return name, None
    return match[1], int(match[2])
