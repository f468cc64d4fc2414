"""Search by looking at every vector, and the one order that all matches come in."""

import numpy as np
from numpy.typing import NDArray

from ..records import Matches


def search_exactly(
    vectors: NDArray[np.float32], rows: NDArray[np.integer], queries: NDArray[np.float32], k: int
) -> Matches:
    """The best `k` of (n, D) vectors, numbered by (n,) ascending `rows`, for each of (Q, D) queries."""
    scores = queries @ vectors.T  # (Q, n)
    first = len(rows) - k
    if first <= 0:
        return best(scores, np.broadcast_to(rows, scores.shape), k)
    order = np.argpartition(scores, first, axis=1)[:, first:]
    kth = np.take_along_axis(scores, order[:, :1], 1)
    # A partition cuts equal scores by chance; where the k-th has equals outside, they are cut by row.
    for query in np.flatnonzero(np.count_nonzero(scores >= kth, axis=1) > k):
        order[query] = np.argsort(-scores[query], kind="stable")[:k]
    return best(np.take_along_axis(scores, order, 1), rows[order], k)


def best(scores: NDArray[np.floating], rows: NDArray[np.integer], k: int) -> Matches:
    """Candidates (Q, n) in the order of matches: by score, ties by row; cut or padded to `k`.

    A candidate of row -1 is none.
    """
    scores = np.where(rows >= 0, scores, -np.inf).astype(np.float32, copy=False)
    order = np.lexsort((rows, -scores), axis=-1)[:, :k]
    query = np.arange(len(scores))[:, None]
    found = Matches(scores[query, order], rows[query, order].astype(np.int64, copy=False))
    if order.shape[1] == k:
        return found
    padded = Matches.none(len(scores), k)
    padded.scores[:, : order.shape[1]] = found.scores
    padded.rows[:, : order.shape[1]] = found.rows
    return padded
