"""What the model is shown of a sample and what it must predict (4M, arXiv 2312.06647 section 3; 4M-21,
arXiv 2406.09406, appendix on training).

Budgets of input and target tokens are shared among modalities by Dirichlet draws. Of a grid, random tokens
are inputs and others targets; of a sequence, random spans are targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from ...errors import InputError
from ..inputs import normalize_pixels
from ..modalities import Modality
from ..tokenizers.spans import sample_spans
from ..tokenizers.text import TextTokenizer
from ..tokens import Tokens
from .budgets import shares
from .token_data import TokenData

Keep = Literal["random", "all", "binary"]
Alpha = Annotated[float, Field(ge=0)]
_Number = Annotated[int, Field(ge=1)]
Budget = _Number | tuple[_Number, _Number]
"""A number of tokens, or the smallest and largest of which each batch draws one."""

_TRIES = 32


@dataclass(frozen=True)
class Component:
    """One way to mask.

    Attributes:
        weight: how often, relative to the others.
        inputs, targets: concentration of the Dirichlet distribution by checkpoint name; those not named take
            `others_in` and `others_out`. 0: never.
        others_in, others_out: see above.
        keep: of sequences by name: `random` shows each unit with a probability drawn from 0..1, `all` shows
            whatever fits, `binary` all or nothing. `random` where not named.
        num_input_tokens: in place of the masking's budget.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    weight: Annotated[float, Field(gt=0)] = 1.0
    inputs: Mapping[str, Alpha] = field(default_factory=dict[str, float])
    targets: Mapping[str, Alpha] = field(default_factory=dict[str, float])
    others_in: Alpha = 0.0
    others_out: Alpha = 0.0
    keep: Mapping[str, Keep] = field(default_factory=dict[str, Keep])
    num_input_tokens: Budget | None = None


@dataclass(frozen=True)
class Masking:
    """How batches are masked.

    Attributes:
        components: one is drawn for each batch, so that its samples need about as many tokens.
        num_input_tokens, num_target_tokens: budgets of a sample.
        chunk: of sequences by name, tokens that stay together (2: a statistic's name and number).
        shuffled: sequences whose chunks have no order: each draw has another.
    """

    components: tuple[Component, ...]
    num_input_tokens: Budget = 128
    num_target_tokens: Budget = 128
    chunk: Mapping[str, int] = field(default_factory=lambda: {"metadata": 2})
    shuffled: frozenset[str] = frozenset({"metadata"})


class MaskedBatches:
    """Draws batches; number n is always the same one.

    Args:
        data: tokenized samples, drawn with replacement.
        modalities: rows of the model's modalities, by checkpoint name; columns without one are left alone.
        masking: how.
        text: tokenizer of the sequences.
        targets: names that can be predicted.
        batch_size: samples.
        seed: of all draws.
        name: of the data, for messages.

    Raises:
        InputError: the data has no modality of the model, or one of another shape.
    """

    def __init__(
        self,
        data: TokenData,
        modalities: Mapping[str, Modality],
        masking: Masking,
        text: TextTokenizer,
        *,
        targets: Iterable[str],
        batch_size: int,
        seed: int = 0,
        name: str = "the data",
    ) -> None:
        self.data, self.masking, self.text, self.name = data, masking, text, name
        self.batch_size, self.seed = batch_size, seed
        self._rows = {column: modalities[column] for column in data.columns if column in modalities}
        self._targets = frozenset(targets) & frozenset(self._rows)
        if not self._rows:
            raise InputError(f"{name} has none of the model's modalities, only {', '.join(data.columns)}.")
        for column, row in self._rows.items():
            _require_fit(name, row, data.columns[column])

    def draw(self, number: int) -> dict[str, Tokens]:
        """Batch `number`: inputs and targets by modality, in a random order; some target is always there.

        Raises InputError where the masking asks for nothing that the data has.
        """
        rng = np.random.default_rng([self.seed, number])
        weights = np.array([component.weight for component in self.masking.components])
        for _ in range(_TRIES):
            component = self.masking.components[int(rng.choice(len(weights), p=weights / weights.sum()))]
            batch = self._draw(component, rng)
            if any(_asks(tokens) for tokens in batch.values()):
                return batch
        raise InputError(
            f"The masking asks for nothing that can be predicted of {self.name}, which has "
            f"{', '.join(self._rows)}: give some of these a concentration as targets."
        )

    def _draw(self, component: Component, rng: np.random.Generator) -> dict[str, Tokens]:
        samples = rng.integers(len(self.data), size=self.batch_size)
        which = rng.integers(self.data.num_renderings, size=self.batch_size)
        names = list(self._rows)
        values = {name: self._pick(name, samples, which, rng) for name in names}
        lengths = np.stack([self._lengths(name, values[name]) for name in names], axis=1)
        num_inputs = _budget(component.num_input_tokens or self.masking.num_input_tokens, rng)
        alphas = np.array([component.inputs.get(name, component.others_in) for name in names])
        given = shares(lengths, alphas, num_inputs, rng)
        alphas = np.array([component.targets.get(name, component.others_out) for name in names])
        alphas *= [name in self._targets for name in names]
        # A target spells its spans with sentinels: that of n tokens has n + 2, or its end would be cut off.
        spelt = np.where(lengths > 0, lengths + 2, 0)
        room = np.where([self._rows[name].kind == "seq" for name in names], spelt, lengths - given)
        asked = shares(room, alphas, _budget(self.masking.num_target_tokens, rng), rng)
        batch: dict[str, Tokens] = {}
        for column in rng.permutation(len(names)):
            name = names[column]
            if not (given[:, column].any() or asked[:, column].any()):
                continue
            tokens = self._mask(name, values[name], given[:, column], asked[:, column], component, rng)
            if not bool(tokens.input_mask.all()) or _asks(tokens):
                batch[name] = tokens
        return batch

    def _pick(
        self, name: str, samples: NDArray[np.int64], which: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.generic]:
        column = self.data.columns[name]
        which = np.minimum(which, column.shape[1] - 1)
        if self._rows[name].kind == "pix":
            return column[samples, which]
        return column[samples, which, rng.integers(column.shape[2], size=len(samples))]

    def _lengths(self, name: str, values: NDArray[np.generic]) -> NDArray[np.int64]:
        row = self._rows[name]
        if row.kind == "emb":
            return values.any(2).sum(1)
        if row.kind == "seq":
            used = (values != 0).sum(1)
            highest = int(values.max(initial=0))
            self._require_ids(row, highest)
            return np.minimum(used + (used > 0), row.max_tokens)  # and the end
        if row.kind == "img":
            self._require_ids(row, int(values.max()))
            present = values[:, 0] != -1
        else:
            present = values.reshape(len(values), -1).any(1)
        return np.where(present, row.max_tokens, 0)

    def _require_ids(self, row: Modality, highest: int) -> None:
        assert row.vocab_size is not None
        if highest >= row.vocab_size:
            raise InputError(
                f"{self.name}: {row.name} holds id {highest}, the model has {row.vocab_size} of them; "
                "tokenize with the tokenizers of this model."
            )

    def _mask(
        self,
        name: str,
        values: NDArray[np.generic],
        given: NDArray[np.int64],
        asked: NDArray[np.int64],
        component: Component,
        rng: np.random.Generator,
    ) -> Tokens:
        row = self._rows[name]
        if row.kind == "seq":
            return self._mask_sequence(name, values, given, asked, component.keep.get(name, "random"), rng)
        if row.kind == "emb":
            order = np.where(values.any(2), rng.random(values.shape[:2]), 2).argsort(1).argsort(1)
            vectors = torch.from_numpy(values.astype(np.float32))
            return Tokens(vectors, torch.from_numpy(order >= given[:, None]))
        order = rng.random((len(values), row.max_tokens)).argsort(1)
        hidden = torch.from_numpy(order >= given[:, None])
        if row.kind == "pix":
            return Tokens(torch.from_numpy(normalize_pixels(values)), hidden)
        wanted = (order >= given[:, None]) & (order < (given + asked)[:, None])
        ids = torch.from_numpy(np.maximum(values, 0).astype(np.int64))
        return Tokens(ids, hidden, torch.from_numpy(~wanted) if name in self._targets else None)

    def _mask_sequence(
        self,
        name: str,
        values: NDArray[np.generic],
        given: NDArray[np.int64],
        asked: NDArray[np.int64],
        keep: Keep,
        rng: np.random.Generator,
    ) -> Tokens:
        size, limit = self.masking.chunk.get(name, 1), self._rows[name].max_tokens
        pairs: list[tuple[list[int], list[int]]] = []
        for ids, budget, wanted in zip(values.tolist(), given.tolist(), asked.tolist(), strict=True):
            known: list[int] = [i for i in ids if i]
            if not known or not (budget or wanted):
                pairs.append(([], []))
                continue
            probability = {"random": rng.random(), "all": 1.0, "binary": float(rng.integers(2))}[keep]
            if not wanted:  # nothing is asked: what does not fit the budget is left out
                probability = 1.0
            if probability == 0:
                budget = 0
            chunks = [known[i : i + size] for i in range(0, len(known), size)]
            if name in self.masking.shuffled:
                chunks = [chunks[i] for i in rng.permutation(len(chunks))]
            inputs, target = sample_spans(
                chunks,
                input_budget=budget,
                target_budget=wanted,
                keep_prob=probability,
                tokenizer=self.text,
                max_tokens=limit,
                random=rng,
            )
            pairs.append((inputs, target if len(target) > 1 else []))
        return buffer(pairs)


def buffer(pairs: Sequence[tuple[list[int], list[int]]]) -> Tokens:
    """Lay inputs and targets of sequences out side by side: all inputs, then all targets."""
    longest = max(len(inputs) for inputs, _ in pairs)
    length = max(longest + max(len(target) for _, target in pairs), 1)
    tensor = np.zeros((len(pairs), length), np.int64)
    hidden, unwanted = np.ones((2, len(pairs), length), bool)
    for i, (inputs, target) in enumerate(pairs):
        tensor[i, : len(inputs)], hidden[i, : len(inputs)] = inputs, False
        tensor[i, longest : longest + len(target)] = target
        unwanted[i, longest : longest + len(target)] = False
    return Tokens(*map(torch.from_numpy, (tensor, hidden, unwanted)))


def _asks(tokens: Tokens) -> bool:
    return tokens.target_mask is not None and not bool(tokens.target_mask.all())


def _budget(budget: Budget, rng: np.random.Generator) -> int:
    return budget if isinstance(budget, int) else int(rng.integers(budget[0], budget[1] + 1))


def _require_fit(name: str, row: Modality, column: NDArray[np.generic]) -> None:
    """Whether a column holds what its modality is."""
    kind, shape = column.dtype.name, column.shape
    match row.kind:
        case "pix":
            fits = kind == "uint8" and shape[2:] == (row.image_size, row.image_size, row.channels)
            needs = f"pixels uint8 (N, R, {row.image_size}, {row.image_size}, {row.channels})"
        case "img":
            fits, needs = (
                kind == "int16" and shape[3:] == (row.max_tokens,),
                f"ids (N, R, W, {row.max_tokens})",
            )
        case "seq":
            fits, needs = kind == "int16" and len(shape) == 4, "ids int16 (N, R, W, n)"
        case "emb":
            fits = kind == "float16" and shape[4:] == (row.channels,)
            needs = f"vectors float16 (N, R, W, L, {row.channels})"
    if not fits:
        raise InputError(f"{name}: {row.name} holds {kind} {shape}, the model takes {needs}.")
