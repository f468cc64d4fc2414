"""Batches of values to train on: rows at random, cut and mirrored where a modality stays one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..readers.depth import standardize
from .fit import step_seed
from .value_arrays import ValueArray, prepared

CROPPED = ("rgb", "normal", "depth", "semseg", "canny_edge", "sam_edge")
MIRRORED = (*CROPPED, "sam_instance")
"""Features and poses are not: the features of a mirrored picture are others than mirrored features."""


class ValueDraws:
    """Gives batch number n, always the same one.

    Args:
        array: values.
        rows: which of them to draw from.
        batch_size: values in a batch.
        seed: of what is drawn.
        size: side of squares cut at random out of larger pictures and maps; None cuts nothing.
        mirror: whether half of the values are mirrored, where the modality allows it.
    """

    def __init__(
        self,
        array: ValueArray,
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int,
        *,
        size: int | None = None,
        mirror: bool = False,
    ) -> None:
        self._array, self._rows = array, rows
        self._batch_size, self._seed = batch_size, seed
        self._size = size if array.raw in CROPPED else None
        self._mirror = mirror and array.raw in MIRRORED

    def __call__(self, number: int) -> Tensor:
        """Values as the tokenizer's `encode` takes them."""
        rng = np.random.default_rng(step_seed(self._seed, number))
        rows = np.sort(self._rows[rng.integers(len(self._rows), size=self._batch_size)])
        values = self._array.values[rows]
        if self._size is not None:
            values = np.stack([_cut(value, self._size, rng, self._array.raw) for value in values])
        if self._mirror:
            turned = rng.random(len(values)) < 0.5
            values[turned] = mirrored(self._array.raw, values[turned])
        return prepared(self._array.raw, values)


def mirrored(raw: str, values: NDArray[Any]) -> NDArray[Any]:
    """Values (B, H, W, ...), left and right swapped; normals then point the other way across."""
    values = values[:, :, ::-1].copy()
    if raw == "normal":
        values[..., 0] = 255 - values[..., 0]
    return values


def central(raw: str, values: NDArray[Any], size: int) -> NDArray[Any]:
    """The middle of values (B, H, W, ...), a square of `size`; whole where the modality is not cut."""
    if raw not in CROPPED or values.shape[1] == size:
        return values
    start = (values.shape[1] - size) // 2
    return np.stack([_window(value, start, start, size, raw) for value in values])


def _cut(value: NDArray[Any], size: int, rng: np.random.Generator, raw: str) -> NDArray[Any]:
    top, left = rng.integers(value.shape[0] - size + 1, size=2)
    return _window(value, top, left, size, raw)


def _window(value: NDArray[Any], top: int, left: int, size: int, raw: str) -> NDArray[Any]:
    if value.shape[0] == size:
        return value
    window = value[top : top + size, left : left + size]
    # Depth is standardised over what is seen of it.
    return standardize(window.astype(np.float32)).astype(np.float16) if raw == "depth" else window
