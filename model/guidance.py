"""What the encoder is shown for each item, and how the predictions from it are weighed.

An item is predicted from one *branch* or several: its conditions, the same without them, each of its weighted
parts. Guidance is one sum over branches, sum_b a_b l_b with sum_b a_b = 1:

- classifier-free guidance by w (arXiv 2207.12598): w for the conditions, 1 - w without them;
- weighted parts: w_k for part k, 1 - sum_k w_k for none of them, so that l = l_0 + sum_k w_k (l_k - l_0).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, QueryError
from .inputs import normalize_pixels
from .modalities import SEQUENCE_POSITIONS, Modality
from .plans import TargetPlan
from .tokens import Tokens

_NEGLIGIBLE = 1e-9  # 1 - 0.3 - 0.7 is not 0 in floating point


@dataclass(frozen=True)
class Part:
    """Conditions that count together, by modality, and their weight; a negative one pushes away."""

    content: Mapping[str, np.ndarray]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.weight, int | float) or not math.isfinite(self.weight):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise QueryError(f"The weight of a part must be a finite number, got {self.weight!r}.")


@dataclass(frozen=True)
class Given:
    """One modality of one item as the encoder sees it.

    Attributes:
        values: ids int64 (n,), normalised pixels float32 (3, H, W), or vectors float32 (n, channels).
        used: bool (n,), which tokens are shown.
    """

    values: np.ndarray
    used: np.ndarray

    @cached_property
    def key(self) -> bytes:
        """Equal for equal content."""
        return self.values.tobytes() + self.used.tobytes()


Row = Mapping[str, Given]
"""What the encoder is shown in one pass, by modality."""


def all_used(values: np.ndarray, num_tokens: int | None = None) -> Given:
    """A modality of which every token is shown."""
    return Given(values, np.ones(len(values) if num_tokens is None else num_tokens, bool))


def read_given(modality: Modality, value: object) -> Given:
    """A value from outside: uint8 pixels (H, W, 3), ids in a grid or a sequence, or vectors (n, channels).

    Raises:
        InputError: another shape or type, or ids that the modality does not have.
    """
    array = np.asarray(value)
    if modality.kind == "pix":
        size = modality.image_size
        if array.dtype != np.uint8 or array.shape != (size, size, 3):
            raise _wrong(modality, f"uint8 pixels ({size}, {size}, 3)", array)
        return all_used(normalize_pixels(array[None])[0], modality.max_tokens)
    if modality.kind == "emb":
        channels = modality.channels
        is_shape = array.ndim == 2 and array.shape[1] == channels and 0 < len(array) <= SEQUENCE_POSITIONS
        if not is_shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise _wrong(modality, f"finite vectors (1..{SEQUENCE_POSITIONS}, {channels})", array)
        return all_used(array.astype(np.float32))
    return all_used(read_ids(modality, array))


def read_ids(modality: Modality, value: object) -> np.ndarray:
    """Ids of a whole grid (its shape, or flat) or of a sequence of 1..512, as int64 (n,).

    Raises:
        InputError: another shape or type, or ids that the modality does not have.
    """
    array = np.asarray(value)
    if modality.grid is None:
        is_shape, shape = (
            array.ndim == 1 and 0 < array.size <= SEQUENCE_POSITIONS,
            f"(1..{SEQUENCE_POSITIONS},)",
        )
    else:
        is_shape, shape = array.shape in ((modality.max_tokens,), modality.grid), f"({modality.max_tokens},)"
    if not is_shape or array.dtype.kind not in "iu":
        raise _wrong(modality, f"integer ids {shape}", array)
    assert modality.vocab_size is not None
    if array.min() < 0 or array.max() >= modality.vocab_size:
        known, found = f"0..{modality.vocab_size - 1}", f"{array.min()}..{array.max()}"
        raise InputError(f"{modality.name}: ids must lie in {known}, got {found}.")
    return array.reshape(-1).astype(np.int64)


def _wrong(modality: Modality, expected: str, array: np.ndarray) -> InputError:
    return InputError(f"{modality.name}: expected {expected}, got {array.dtype} {array.shape}.")


@dataclass(frozen=True)
class Branch:
    """A prediction and its coefficient."""

    coefficient: float
    row: Row


class Item:
    """What one item shows the encoder: its conditions, and its targets as far as they are known.

    Args:
        parts: weights and content.
        is_joint: whether there is one part, which finished targets join; else each becomes a part.
        targets: of each target, what is known from the start.
        nothing: by modality, what stands for it where it is taken away; other modalities just vanish.
    """

    def __init__(
        self,
        parts: Iterable[tuple[float, Row]],
        *,
        is_joint: bool,
        targets: Mapping[str, Given],
        nothing: Mapping[str, Given],
    ) -> None:
        self._parts = [(weight, row) for weight, row in parts if weight]
        self._is_joint = is_joint
        self._nothing = nothing
        self._pending = dict(targets)
        self._finished: dict[str, tuple[float, Given]] = {}

    def show(self, target: str, known: Given) -> None:
        """Show what is known by now of an unfinished target."""
        self._pending[target] = known

    def finish(self, target: str, result: Given, weight: float) -> None:
        """Let a target be a condition of those after it."""
        self._pending.pop(target, None)
        self._finished[target] = weight, result

    def branches(self, plan: TargetPlan) -> list[Branch]:
        """What to predict a target from; coefficients sum to 1 and none is 0."""
        found = self._joint(plan) if self._is_joint else self._weighted(plan)
        return [branch for branch in found if abs(branch.coefficient) > _NEGLIGIBLE]

    def _joint(self, plan: TargetPlan) -> list[Branch]:
        conditions = {name: given for _, row in self._parts for name, given in row.items()}
        conditions |= {name: given for name, (_, given) in self._finished.items()}
        full = {**conditions, **self._pending}
        taken = conditions if plan.guided_by is None else set(plan.guided_by) & set(conditions)
        rest = {name: given for name, given in full.items() if name not in taken} | self._without(taken)
        if plan.guidance == 1 or row_key(full) == row_key(rest):
            return [Branch(1.0, full)]
        return [Branch(plan.guidance, full), Branch(1 - plan.guidance, rest)]

    def _weighted(self, plan: TargetPlan) -> list[Branch]:
        parts = [*self._parts, *((weight, {name: given}) for name, (weight, given) in self._finished.items())]
        branches = [Branch(plan.guidance * weight, {**self._pending, **row}) for weight, row in parts]
        names = {name for _, row in parts for name in row}
        rest = math.fsum([1.0, *(-branch.coefficient for branch in branches)])
        return [*branches, Branch(rest, {**self._pending, **self._without(names)})]

    def _without(self, names: Iterable[str]) -> dict[str, Given]:
        return {name: self._nothing[name] for name in names if name in self._nothing}


def row_key(row: Row) -> tuple[tuple[str, bytes], ...]:
    """Equal for rows that show the encoder the same."""
    return tuple(sorted((name, given.key) for name, given in row.items() if given.used.any()))


def collate(
    rows: Sequence[Row], modalities: Iterable[Modality], device: torch.device, dtype: torch.dtype
) -> dict[str, Tokens]:
    """Encoder input of several rows: the given modalities that any row shows, in this order."""
    return {
        modality.name: _collate([row.get(modality.name) for row in rows], device, dtype)
        for modality in modalities
        if any(modality.name in row for row in rows)
    }


def _collate(given: Sequence[Given | None], device: torch.device, dtype: torch.dtype) -> Tokens:
    present = [one for one in given if one is not None]
    is_flat = present[0].values.ndim == 3  # pixels: all of one size
    length = max(len(one.used) for one in present)
    shape = present[0].values.shape if is_flat else (length, *present[0].values.shape[1:])
    values = np.zeros((len(given), *shape), present[0].values.dtype)
    mask = np.ones((len(given), length), bool)
    for i, one in enumerate(given):
        if one is not None:
            values[i, : len(one.values)] = one.values
            mask[i, : len(one.used)] = ~one.used
    tensor = torch.from_numpy(values).to(device)
    return Tokens(
        tensor.to(dtype) if tensor.is_floating_point() else tensor, torch.from_numpy(mask).to(device)
    )


@dataclass(frozen=True)
class Branches:
    """The branches of several items as the rows of one batch.

    Attributes:
        rows: what each shows the encoder.
        owner: int64 (R,), which item each is for.
        coefficients: float32 (R,).
        num_items: how many items.
    """

    rows: Sequence[Row]
    owner: np.ndarray
    coefficients: np.ndarray
    num_items: int

    @classmethod
    def of(cls, items: Sequence[Item], plan: TargetPlan) -> "Branches":
        """All branches of these items."""
        found = [(i, branch) for i, item in enumerate(items) for branch in item.branches(plan)]
        return cls(
            [branch.row for _, branch in found],
            np.asarray([i for i, _ in found], np.int64),
            np.asarray([branch.coefficient for _, branch in found], np.float32),
            len(items),
        )

    def keep(self, items: Sequence[int]) -> tuple["Branches", np.ndarray]:
        """Those of some of the items, and which rows these are, int64 (R',)."""
        rows = np.flatnonzero(np.isin(self.owner, items))
        owner = np.searchsorted(np.asarray(items), self.owner[rows])
        return Branches(
            [self.rows[i] for i in rows.tolist()], owner, self.coefficients[rows], len(items)
        ), rows

    def combine(self, y: Tensor) -> Tensor:
        """Decoder outputs of the rows (R, k, D) to those of the items (B, k, D).

        Heads are linear, so weighing their inputs weighs the logits, for the price of one head.
        """
        if len(self.rows) == self.num_items:
            return y  # one branch each, with coefficient 1
        weights = np.zeros((self.num_items, len(self.rows)), np.float32)
        weights[self.owner, np.arange(len(self.rows))] = self.coefficients
        return torch.einsum("br,rkd->bkd", torch.from_numpy(weights).to(y.device), y.float()).to(y.dtype)
