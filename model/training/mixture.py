"""What the model is shown of a sample: mixtures of modalities with token budgets (arXiv 2406.09406).

A batch follows one component of the mixture, so that its samples need about as many tokens. Components name
the modalities that may appear and how; within one that has `num_tokens`, each sample draws its shares from a
Dirichlet distribution, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Component:
    """One way to pick inputs.

    Attributes:
        weight: how often, relative to the others.
        present: modality to the probability that a sample has it; one at least is always there.
        num_tokens: how many tokens to share among the modalities present; 0 gives each of them whole.
        alpha: concentration of the Dirichlet distribution; small makes shares uneven.
    """

    weight: float
    present: Mapping[str, float]
    num_tokens: int = 0
    alpha: float = 1.0


@dataclass(frozen=True)
class Phase:
    """What the mixture is from batch number `start` on."""

    start: int
    components: tuple[Component, ...]


def current_phase(phases: Sequence[Phase], number: int) -> Phase:
    """The last phase that starts at batch `number` or before; the first starts at 0."""
    return max((phase for phase in phases if phase.start <= number), key=lambda phase: phase.start)


def draw_component(components: Sequence[Component], rng: np.random.Generator) -> Component:
    """Pick a component by weight."""
    weights = np.array([component.weight for component in components])
    return components[int(rng.choice(len(components), p=weights / weights.sum()))]


def draw_presence(
    component: Component, names: Sequence[str], num_samples: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which sample has which modality: `(num_samples, len(names))`, at least one in every row."""
    odds = np.array([component.present.get(name, 0.0) for name in names])
    present = rng.random((num_samples, len(names))) < odds
    empty = ~present.any(1)
    present[empty, rng.choice(len(names), size=int(empty.sum()), p=odds / odds.sum())] = True
    return present


def draw_budgets(
    present: NDArray[np.bool_], num_tokens: int, alpha: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Share `num_tokens` among the modalities present in each sample by a Dirichlet draw: like `present`."""
    raw = rng.gamma(alpha, size=present.shape) * present + 1e-9 * present
    return np.floor(raw / raw.sum(1, keepdims=True) * num_tokens).astype(np.int64)


def keep_some(valid: Mask, budget: NDArray[np.int64], rng: np.random.Generator) -> Mask:
    """Keep at most `budget` `(B,)` of the valid units `(B, n)`, chosen at random."""
    order = np.where(valid, rng.random(valid.shape), 2).argsort(1).argsort(1)
    return valid & (order < budget[:, None])


def mask_spans(
    ids: NDArray[np.int64], valid: Mask, kept: Mask, sentinels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Mask]:
    """Replace each run of dropped tokens by one sentinel (T5, arXiv 1910.10683), for a whole batch at once.

    Args:
        ids: tokens `(B, n)`.
        valid: which of them exist; they come first in a row.
        kept: which of these stay.
        sentinels: ids of `[S_1]`, `[S_2]`, ...; runs beyond them vanish.

    Returns:
        Ids and mask (True = used) of the same shape.
    """
    dropped = valid & ~kept
    first = dropped.copy()
    first[:, 1:] &= ~dropped[:, :-1]
    number = first.cumsum(1) - 1
    first &= number < len(sentinels)
    return np.where(first, sentinels[np.minimum(number, len(sentinels) - 1)], ids), kept | first
