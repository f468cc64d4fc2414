"""Drawing tokens from logits: temperature, top-k, top-p, and where the randomness comes from.

Filters as in 4M (arXiv 2312.06647): top-k, then nucleus (top-p, arXiv 1904.09751) on logits that no
temperature has touched, then the temperature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

GREEDY_BELOW = 1e-8
"""Temperatures below this take the best token."""


@dataclass(frozen=True)
class Drawn:
    """Tokens int64 (B, k), and float32 (B, k) the probability with which each was drawn."""

    tokens: Tensor
    probs: Tensor


def filter_logits(logits: Tensor, top_k: float = 0, top_p: float = 0.0) -> Tensor:
    """Logits (..., V) with what must not be drawn at -inf; the argument is left as it is.

    Args:
        logits: (..., V).
        top_k: how many of the best to keep (ties stay): a number, or as a float below 1 a share of V; 0: all.
        top_p: keep the best tokens while those before them have at most this probability; 0: all. The best
            one always stays.
    """
    size = logits.shape[-1]
    count = max(int(top_k * size), 1) if 0 < top_k < 1 else int(top_k)
    if 0 < count < size:
        worst = logits.topk(count, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < worst, -torch.inf)
    if 0 < top_p < 1:
        ordered, index = logits.sort(dim=-1, descending=True, stable=True)
        probs = ordered.softmax(-1)
        is_out = probs.cumsum(-1) - probs > top_p
        is_out[..., 0] = False  # against rounding
        logits = logits.masked_fill(torch.zeros_like(is_out).scatter(-1, index, is_out), -torch.inf)
    return logits


def draw(
    logits: Tensor, uniform: Tensor, temperature: Tensor, *, top_k: float = 0, top_p: float = 0.0
) -> Drawn:
    """Draw one token from each distribution.

    Args:
        logits: float (B, k, V).
        uniform: float64 (B, k) in [0, 1): which token, by the inverse of the cumulative distribution. Unlike
            one random number per token of the vocabulary, these cost nothing to keep apart per item.
        temperature: (B, k) or broadcastable; near 0 takes the best token and reports probability 1.
        top_k, top_p: as for `filter_logits`.
    """
    logits = logits.float()
    best = logits.argmax(-1)
    greedy = (temperature < GREEDY_BELOW).expand(best.shape)
    if bool(greedy.all()):
        return Drawn(best, torch.ones_like(best, dtype=torch.float32))
    filtered = filter_logits(logits, top_k, top_p)
    probs = (filtered / temperature.clamp(min=GREEDY_BELOW)[..., None].float()).softmax(-1)
    cumulative = probs.double().cumsum(-1)
    total = cumulative[..., -1:]
    # Strictly below the total, so that the first entry beyond it is a token that can be drawn.
    wanted = torch.minimum(uniform[..., None] * total, total.nextafter(torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, wanted, right=True)[..., 0]
    chosen = probs.gather(-1, tokens[..., None])[..., 0]
    return Drawn(torch.where(greedy, best, tokens), torch.where(greedy, 1.0, chosen))


@dataclass(frozen=True)
class Step:
    """One step of one target, for a part of the batch.

    Attributes:
        target: index of the target in its chain.
        index: of the step.
        items: which items of the batch, (B',).
        slots: int (B', k), the places that the drawn tokens go to.
        unused: bool (B', k), True where a row has no further slot.
        temperature: float (B',).
        top_k, top_p: as for `filter_logits`.
    """

    target: int
    index: int
    items: Sequence[int]
    slots: np.ndarray
    unused: np.ndarray
    temperature: np.ndarray
    top_k: float
    top_p: float


class Chooser(Protocol):
    """Makes every random choice of a generation."""

    def order(self, target: int, item: int, num_slots: int) -> np.ndarray:
        """The order in which ROAR decodes the slots 0..num_slots-1 of an item."""
        ...

    def draw(self, step: Step, logits: Tensor) -> Drawn:
        """Tokens for logits (B', k, V)."""
        ...

    def keep(self, step: Step, confidence: Tensor, counts: np.ndarray) -> np.ndarray:
        """Which tokens MaskGIT keeps: bool (B', k), `counts` (B',) of them in each row."""
        ...


class SeededChooser:
    """Choices that depend on an item's seed, target, step and slot, and on nothing else in the batch.

    Args:
        seeds: one per item, 0 or more; items with equal seeds draw alike.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = seeds

    def order(self, target: int, item: int, num_slots: int) -> np.ndarray:
        """A permutation of the slots."""
        return np.random.default_rng((self._seeds[item], target, 0)).permutation(num_slots)

    def draw(self, step: Step, logits: Tensor) -> Drawn:
        """Tokens for logits (B', k, V)."""
        uniform = np.stack(
            [self._uniform(step, item)[slots] for item, slots in zip(step.items, step.slots, strict=True)]
        )
        return draw(
            logits,
            torch.from_numpy(uniform).to(logits.device),
            torch.from_numpy(step.temperature)[:, None].to(logits.device),
            top_k=step.top_k,
            top_p=step.top_p,
        )

    def keep(self, step: Step, confidence: Tensor, counts: np.ndarray) -> np.ndarray:
        """The most confident ones; of equals the first."""
        order = np.argsort(np.where(step.unused, np.inf, -confidence.cpu().numpy()), axis=1, kind="stable")
        rank = np.argsort(order, axis=1)
        return rank < counts[:, None]

    def _uniform(self, step: Step, item: int) -> np.ndarray:
        generator = np.random.default_rng((self._seeds[item], step.target, 1 + step.index))
        return generator.random(int(step.slots.max(initial=0)) + 1)
