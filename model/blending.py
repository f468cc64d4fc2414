"""Guided composition: what is predicted from the weighted parts of a query, before there is a vector.

    l = l_0 + sum_i w_i (l_i - l_0)

over token logits, l_i being predicted from part i alone and l_0 from nothing (design of 4M's multi-condition
guidance, arXiv 2312.06647; a negative weight pushes away). That is one sum over passes whose coefficients add
up to 1, and a pass with coefficient 0 is not made: one part of weight 1 costs and gives what it does alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, ModelError, QueryError
from .modalities import Modality
from .prediction import Item

_NEGLIGIBLE = 1e-9  # 1 - 0.3 - 0.7 is not 0 in floating point

Parts = Sequence[tuple[float, Item]]
"""Weighted parts of a query; a part has at least one modality."""


@dataclass(frozen=True)
class Passes:
    """Passes of several queries in one batch.

    Attributes:
        items: what each pass is conditioned on; passes from nothing are shared between queries.
        coefficients: float32 (Q, R), of each pass for each query.
    """

    items: Sequence[Item]
    coefficients: np.ndarray

    def logits(self, of_passes: Tensor) -> Tensor:
        """Float32 logits of the passes (R, n, V) to those of the queries (Q, n, V)."""
        weights = torch.from_numpy(self.coefficients).to(of_passes.device)
        return torch.einsum("qr,rnv->qnv", weights, of_passes)


class Nothing:
    """What the encoder is shown for parts that are taken away.

    As in the published models' guidance, a text becomes one sentinel, a span to be filled, and T5 states one
    vector of zeros; pixels and grids vanish. An encoder needs something to look at: where nothing would be
    left, an empty caption is, or an empty text of another kind.

    Args:
        inputs: rows of the modalities that the model was opened with.
        sentinel: id of the first one.
    """

    def __init__(self, inputs: Sequence[Modality], sentinel: int) -> None:
        self._stand_ins: dict[str, np.ndarray] = {}
        for row in inputs:
            if row.kind == "emb":
                self._stand_ins[row.name] = np.zeros((1, row.channels or 0), np.float32)
            elif row.kind == "seq" and sentinel < (row.vocab_size or 0):
                self._stand_ins[row.name] = np.asarray([sentinel], np.int64)
        self._last_resort = min(self._stand_ins, key=lambda name: name != "caption", default=None)

    def __call__(self, names: Sequence[str]) -> Item:
        """What stands for all of these modalities.

        Raises:
            ModelError: the model was opened with pixels and grids only.
        """
        found = {name: self._stand_ins[name] for name in names if name in self._stand_ins}
        if found:
            return found
        if self._last_resort is None:
            raise ModelError(
                "Weights need a prediction from nothing, which takes an empty caption, and this model was "
                "opened without texts: open it with caption among its inputs."
            )
        return {self._last_resort: self._stand_ins[self._last_resort]}


def blend(queries: Sequence[Parts], nothing: Nothing) -> Passes:
    """Find the passes that queries need.

    Raises:
        InputError: a query without parts.
        QueryError: a weight that is not a finite number.
        ModelError: a query needs a prediction from nothing, and the model was opened without texts.
    """
    items: list[Item] = []
    empty: dict[tuple[str, ...], int] = {}  # passes from nothing, by what was taken away
    entries: list[tuple[int, int, float]] = []
    for number, parts in enumerate(queries):
        if not parts:
            raise InputError(f"Query {number} has no parts; give at least one.", code="input.empty")
        used = [(_weight(number, weight), item) for weight, item in parts]
        used = [(weight, item) for weight, item in used if weight]
        for weight, item in used:
            entries.append((number, len(items), weight))
            items.append(item)
        rest = math.fsum([1.0, *(-weight for weight, _ in used)])
        if abs(rest) > _NEGLIGIBLE:
            stand_in = nothing(sorted({name for _, item in used for name in item}))
            key = tuple(stand_in)
            if key not in empty:
                empty[key] = len(items)
                items.append(stand_in)
            entries.append((number, empty[key], rest))
    coefficients = np.zeros((len(queries), len(items)), np.float32)
    for query, place, coefficient in entries:
        coefficients[query, place] = coefficient
    return Passes(items, coefficients)


def _weight(number: int, weight: object) -> float:
    if isinstance(weight, int | float) and math.isfinite(weight):
        return float(weight)
    raise QueryError(f"Query {number}: a weight must be a finite number, got {weight!r}.")
