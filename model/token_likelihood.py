"""How probable stored tokens are under what a query's pass predicted, and how much that counts.

The likelihood of an item is 1 + mean over codebook heads h of log p'_h(token_h) / log V, at most 1: the pass
gave a distribution p_h over V tokens for each head, and the item has one stored token per head, so this says
how probable this very item is as an answer. 1 is certain, 0 no better than chance. p' = 0.99 p + 0.01 / V
keeps one improbable head from outvoting all others.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.floating[Any]]"
Ints: TypeAlias = "NDArray[np.integer[Any]]"

SMOOTHING = 0.01
LIKELIHOOD_SHARE = 0.8
"""Of a score that has a cosine for the rest, where it was not fitted to what is asked by. Much: where a query
says little, the expected vector lies between all that it may mean, near nothing in particular, while the
probabilities of tokens still tell items apart. Not all: of a picture the vector knows more.
"""


def likelihood_table(log_probs: Floats) -> Floats:
    """What each token says of an item: log-probabilities (..., H, V) smoothed and scaled."""
    vocabulary = log_probs.shape[-1]
    smooth = np.exp(log_probs) * np.float32(1 - SMOOTHING) + np.float32(SMOOTHING / vocabulary)
    return 1 + np.log(smooth) / np.float32(np.log(vocabulary))


def likelihood(table: Floats, tokens: Ints) -> Floats:
    """Likelihoods (..., n) of stored tokens (n, H) by tables (..., H, V)."""
    num_heads = table.shape[-2]
    total = np.zeros((*table.shape[:-2], len(tokens)))
    for head in range(num_heads):
        total += table[..., head, :][..., tokens[:, head]]
    return total / num_heads
