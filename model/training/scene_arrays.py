"""Scene shards packed into arrays that training indexes without a loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..scenes import COLORS, GROUNDS, MATERIALS, MAX_OBJECTS, PATTERNS, SHAPES, SIZES, SKIES
from ..tokenizers.sequences import METADATA
from .scene_data import SceneShards

MAX_CAPTION = 64
MAX_COLORS = 7


@dataclass(frozen=True)
class SceneArrays:
    """S scenes with R renderings; unused places hold 0, of `boxes` and `palette` -1.

    Attributes:
        rgb: uint8 `(S, R, size, size, 3)`.
        captions: int16 ids `(S, R, 3, MAX_CAPTION)`; the last wording is partial.
        boxes: float32 `(S, R, MAX_OBJECTS, 4)`, x0, y0, x1, y1 in 0..1.
        box_labels: int16 token ids `(S, R, MAX_OBJECTS)`.
        palette: int16 `(S, R, MAX_COLORS, 3)`, 0..255.
        metadata: int16 `(S, R, M)` quantised numbers of `METADATA_NAMES`.
        attributes: uint8 `(S, A)`, 0 or 1.
    """

    rgb: NDArray[np.uint8]
    captions: NDArray[np.int16]
    boxes: NDArray[np.float32]
    box_labels: NDArray[np.int16]
    palette: NDArray[np.int16]
    metadata: NDArray[np.int16]
    attributes: NDArray[np.uint8]

    def save(self, folder: Path) -> None:
        """Write one `.npy` file per array."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> SceneArrays:
        """Map the files of `save` into memory."""
        return cls(**{f.name: np.load(folder / f"{f.name}.npy", mmap_mode="r") for f in fields(cls)})


# What 4M-21 would have to look at a photo for has no meaning here: no people, watermarks or aesthetics.
METADATA_NAMES = (
    "original_width",
    "original_height",
    "caption_n_chars",
    "caption_n_words",
    "caption_n_sentences",
    "n_humans",
    "n_sam_instances",
    "n_coco_instances",
    "coco_instance_diversity",
    "colorfulness",
    "brightness",
    "contrast",
    "saturation",
    "entropy",
    "walkability",
    "objectness",
    "semantic_diversity",
    "geometric_complexity",
    "occlusion_score",
)


def pack(shards: SceneShards, text_tokenizer: bytes) -> SceneArrays:
    """Tokenize and lay out the records of some shards."""
    tokenizer = Tokenizer.from_str(text_tokenizer.decode())
    views = [view for record in shards.records for view in record["views"]]
    lead = (len(shards.records), shards.rgb.shape[1])
    label_ids = {name: tokenizer.token_to_id(name) for name in SHAPES}
    return SceneArrays(
        rgb=shards.rgb,
        captions=_captions(views, tokenizer).reshape(*lead, 3, MAX_CAPTION),
        boxes=_padded([[b["box"] for b in v["boxes"]] for v in views], (MAX_OBJECTS, 4), np.float32).reshape(
            *lead, MAX_OBJECTS, 4
        ),
        box_labels=_padded(
            [[label_ids[b["label"]] for b in v["boxes"]] for v in views], (MAX_OBJECTS,), np.int16, 0
        ).reshape(*lead, MAX_OBJECTS),
        palette=_padded(
            [[list(bytes.fromhex(c[1:])) for c in v["palette"]] for v in views], (MAX_COLORS, 3), np.int16
        ).reshape(*lead, MAX_COLORS, 3),
        metadata=np.array(
            [[METADATA[name].to_number(v["metadata"][name]) for name in METADATA_NAMES] for v in views],
            dtype=np.int16,
        ).reshape(*lead, -1),
        attributes=np.stack([attribute_vector(record) for record in shards.records]),
    )


def attribute_vector(record: dict[str, Any]) -> NDArray[np.uint8]:
    """Say in zeros and ones what a scene has: ground, pattern, sky, counts, properties that go together."""
    objects: list[dict[str, str]] = record["objects"]
    bound = (
        ("color", "shape"),
        ("color", "shape", "size"),
        ("color", "shape", "material"),
    )
    names = {"color": tuple(COLORS), "shape": SHAPES, "size": tuple(SIZES), "material": MATERIALS}
    parts: list[NDArray[np.uint8]] = [
        _one_hot(record["ground"], tuple(GROUNDS)),
        _one_hot(record["pattern"], PATTERNS),
        _one_hot(record["sky"], tuple(SKIES)),
        _one_hot(len(objects), range(1, MAX_OBJECTS + 1)),
    ]
    for key in ("color", "shape"):
        counts = np.array([sum(o[key] == name for o in objects) for name in names[key]])
        parts.append((counts > 1).astype(np.uint8))
    for keys in bound:
        grid = np.zeros([len(names[key]) for key in keys], dtype=np.uint8)
        for item in objects:
            grid[tuple(names[key].index(item[key]) for key in keys)] = 1
        parts.append(grid.ravel())
    return np.concatenate(parts)


def load_text_tokenizer(path: Path) -> bytes:
    """Read a tokenizer file; fails early when it is no JSON."""
    content = path.read_bytes()
    json.loads(content)
    return content


def _captions(views: list[dict[str, Any]], tokenizer: Tokenizer) -> NDArray[np.int16]:
    texts = [text for view in views for text in view["captions"]]
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    return _padded([row[:MAX_CAPTION] for row in ids], (MAX_CAPTION,), np.int16, 0)


def _padded(rows: Sequence[Any], shape: tuple[int, ...], dtype: type, fill: int = -1) -> NDArray[Any]:
    out = np.full((len(rows), *shape), fill, dtype=dtype)
    for target, row in zip(out, rows, strict=True):
        if len(row):
            target[: len(row)] = row
    return out


def _one_hot(value: object, names: Sequence[object]) -> NDArray[np.uint8]:
    return np.array([value == name for name in names], dtype=np.uint8)
