"""Rendered scenes as values of each modality, as readers prepare them (`model/values.py`), and as what
tokenizers take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..conversions import photo_edges
from ..encoding import TO_TOKENIZER
from ..readers.depth import standardize
from ..readers.shapes import Drawn, draw_mask
from ..scenes import Scene, Split, people
from .scene_data import SceneShards

Values = NDArray[Any]


class SceneValues:
    """Values of rendered scenes.

    Args:
        shards: maps and records.
        seed, split: of the scenes.
    """

    def __init__(self, shards: SceneShards, seed: int, split: Split) -> None:
        self.shards, self._seed = shards, seed
        self._split: Split = split
        self._make: dict[str, Callable[[int, int], Values]] = {
            "rgb": self._stored("rgb"),
            "normal": self._stored("normal"),
            "depth": lambda row, view: standardize(self._map("depth", row, view).astype(np.float32)),
            "semseg": lambda row, view: self._map("semseg", row, view) + np.uint8(1),
            "canny_edge": lambda row, view: photo_edges(self._map("rgb", row, view)),
            "sam_edge": self._stored("sam_edge"),
        }

    def __len__(self) -> int:
        return len(self.shards.records)

    def value(self, raw: str, row: int, view: int) -> Values:
        """The value of an image-like modality."""
        return self._make[raw](row, view)

    def batch(self, raw: str, rows: Sequence[int], views: Sequence[int]) -> Tensor:
        """Values of several scenes as their tokenizer takes them."""
        prepare = TO_TOKENIZER[raw]
        values = [prepare(self.value(raw, row, view)) for row, view in zip(rows, views, strict=True)]
        return torch.from_numpy(np.stack(values))

    def instances(self, row: int, view: int) -> list[Drawn | None]:
        """Box and mask of each object; None where too little of it is seen."""
        owner, count = self._map("instances", row, view), len(self.shards.records[row]["objects"])
        return [draw_mask(owner == number) for number in range(1, count + 1)]

    def people(self, row: int, view: int) -> NDArray[Any]:
        """PERSON (N,)."""
        scene = Scene.sample(self._seed, row, split=self._split)
        return people(scene, self._map("instances", row, view), scene.view(view))

    def _map(self, name: str, row: int, view: int) -> Values:
        return np.asarray(self.shards.maps[name][row, view])

    def _stored(self, name: str) -> Callable[[int, int], Values]:
        return lambda row, view: self._map(name, row, view)
