"""What training reads of rendered scenes besides their maps: captions as ids, contents as zeros and ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..scenes import (
    COLORS,
    FLOORS,
    MATERIALS,
    MAX_OBJECTS,
    OBJECTS,
    OUTDOORS,
    PERSON,
    SIZES,
    SKIES,
    TEXTURES,
    WALLS,
)
from ..scenes.people import ACTIONS

MAX_CAPTION = 96
# Properties that one object has at once.
_TOGETHER = (
    *(("kind",), ("kind", "color"), ("kind", "size"), ("kind", "texture"), ("kind", "material")),
    ("action",),
)


@dataclass(frozen=True)
class SceneArrays:
    """S scenes with R renderings.

    Attributes:
        captions: int16 ids `(S, R, 3, MAX_CAPTION)`, 0 behind; the last wording is partial.
        attributes: uint8 `(S, A)`, 0 or 1.
    """

    captions: NDArray[np.int16]
    attributes: NDArray[np.uint8]

    def save(self, folder: Path) -> None:
        """Write one `.npy` file per array."""
        folder.mkdir(parents=True, exist_ok=True)
        for one in fields(self):
            np.save(folder / f"{one.name}.npy", getattr(self, one.name))

    @classmethod
    def load(cls, folder: Path) -> SceneArrays:
        """Map the files of `save` into memory."""
        return cls(**{f.name: np.load(folder / f"{f.name}.npy", mmap_mode="r") for f in fields(cls)})


def pack(records: Sequence[dict[str, Any]], text_tokenizer: bytes) -> SceneArrays:
    """Tokenize and lay out the records of some scenes."""
    tokenizer = Tokenizer.from_str(text_tokenizer.decode())
    texts = [text for record in records for view in record["views"] for text in view["captions"]]
    captions = np.zeros((len(texts), MAX_CAPTION), np.int16)
    for row, found in zip(captions, tokenizer.encode_batch(texts), strict=True):
        ids = found.ids[:MAX_CAPTION]
        row[: len(ids)] = ids
    return SceneArrays(
        captions.reshape(len(records), -1, 3, MAX_CAPTION),
        np.stack([attribute_vector(record) for record in records]),
    )


def attribute_vector(record: dict[str, Any]) -> NDArray[np.uint8]:
    """Say in zeros and ones what a scene has: place, counts, properties that go together."""
    objects: list[dict[str, str]] = record["objects"]
    place: dict[str, Any] = record["place"]
    names = {
        "color": tuple(COLORS),
        "kind": (*OBJECTS, PERSON),
        "size": tuple(SIZES),
        "material": MATERIALS,
        "texture": TEXTURES,
        "action": ACTIONS,
    }
    parts: list[NDArray[np.uint8]] = [
        _one_hot(place["setting"], ("room", *OUTDOORS)),
        _one_hot(place["ground"], tuple(FLOORS)),
        _one_hot(place["sky"], tuple(SKIES)),
        _one_hot(place["wall"], tuple(WALLS)),
        np.array([place["wallpaper"]], np.uint8),
        _one_hot(len(objects), range(1, MAX_OBJECTS + 1)),
    ]
    for key in ("color", "kind"):
        counts = np.array([sum(o[key] == name for o in objects) for name in names[key]])
        parts.append((counts > 1).astype(np.uint8))
    for keys in _TOGETHER:
        grid = np.zeros([len(names[key]) for key in keys], dtype=np.uint8)
        for item in objects:
            if keys != ("action",) or item["action"]:
                grid[tuple(names[key].index(item[key]) for key in keys)] = 1
        parts.append(grid.ravel())
    return np.concatenate(parts)


def load_text_tokenizer(path: Path) -> bytes:
    """Read a tokenizer file; fails early when it is no JSON."""
    content = path.read_bytes()
    json.loads(content)
    return content


def _one_hot(value: object, names: Sequence[object]) -> NDArray[np.uint8]:
    return np.array([value == name for name in names], dtype=np.uint8)
