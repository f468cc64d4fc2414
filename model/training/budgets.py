"""How a budget of tokens is shared among modalities (arXiv 2312.06647, section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST_ALPHA = 1e-4
_ROUNDS = 4


def shares(
    room: NDArray[np.int64], alphas: NDArray[np.floating], budget: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Share a budget of tokens among modalities by a Dirichlet draw for each sample.

    Args:
        room: `(B, M)`, most tokens of each.
        alphas: `(M,)` concentrations of the Dirichlet distribution; 0 gives a modality nothing.
        budget: of a sample.
        rng: source of the draws.

    Returns:
        `(B, M)`, at most `room`, in all at most `budget` a sample; what one modality has no room for goes to
        the others as they were drawn.
    """
    usable = (alphas > 0)[None] & (room > 0)
    safe = np.maximum(alphas, _LEAST_ALPHA)
    # Of small concentrations every gamma draw is 0 in floating point: draw their logarithms.
    logs = np.log(rng.gamma(safe + 1, size=room.shape)) + np.log1p(-rng.random(room.shape)) / safe
    logs = np.where(usable, logs, -np.inf)
    given, left = np.zeros_like(room), np.full(len(room), budget)
    for _ in range(_ROUNDS):  # a surplus shrinks each time
        part = np.where(given < room, logs, -np.inf)
        top = part.max(1, keepdims=True)
        weight = np.where(np.isfinite(part), np.exp(part - np.where(np.isfinite(top), top, 0)), 0)
        given = np.minimum(given + _whole(weight, left, rng), room)
        left = budget - given.sum(1)
    return given


def _whole(
    weight: NDArray[np.floating], total: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Whole numbers `(B, M)` in proportion to weights, each within 1 of its share and right on average.

    They add up to `total` `(B,)`, or to 0 where all weights are 0.
    """
    ends = weight.cumsum(1)
    last = ends[:, -1:]
    ends = np.divide(ends, last, out=np.zeros_like(ends), where=last > 0)  # exactly 1 at the end
    marks = np.floor(ends * total[:, None] + rng.random((len(weight), 1))).astype(np.int64)
    return np.diff(marks, axis=1, prepend=0)
