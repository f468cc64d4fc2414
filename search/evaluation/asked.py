"""How good a kind of query is: where the item that it was made from lands in the ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..ranking import DEFAULT_SCORING, Scoring

if TYPE_CHECKING:
    from ..engine import SearchEngine
    from ..query import Query, QueryPart

# Searches under way at once: enough to fill the batches of the model.
_NUM_THREADS = 32


@dataclass(frozen=True)
class Retrieval:
    """How a set of queries did, each with one right answer.

    Args:
        num_queries: how many were asked.
        r1: fraction of queries whose item came first, 0..1.
        r5: whose item was among the first 5.
        r10: whose item was among the first 10.
        median_rank: rank of the right item, 1 is best; items beyond the depth of the ranking count as last.
    """

    num_queries: int
    r1: float
    r5: float
    r10: float
    median_rank: float


def evaluate_retrieval(
    engine: SearchEngine,
    collection: str,
    queries: Sequence[tuple[Query | QueryPart, str]],
    *,
    view: str = "joint",
    scoring: Scoring = DEFAULT_SCORING,
    depth: int = 1000,
    progress: Callable[[int], None] | None = None,
) -> Retrieval:
    """Ask each query and look for its item.

    Args:
        engine: answers them; its model calls are batched.
        collection: name of the collection to search.
        queries: pairs of a query and the id of the item that it should find.
        view: which of the items' vectors are compared.
        scoring: see ranking.py.
        depth: how far down the ranking to look, 10 to 10,000.
        progress: called with the number of queries answered.

    Raises:
        ValueError: no query, or a depth outside its range.
        QueryError, InputError: as `SearchEngine.search`.
    """
    if not queries or not 10 <= depth <= 10_000:
        raise ValueError(f"Needs queries and a depth of 10 to 10,000; got {len(queries)} and {depth}.")

    def rank(query: Query | QueryPart, item_id: str) -> int:
        hits = engine.search(collection, query, view=view, scoring=scoring, limit=depth, with_items=False)
        return next((place for place, hit in enumerate(hits, 1) if hit.id == item_id), depth + 1)

    ranks = np.empty(len(queries), dtype=np.int64)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for i, found in enumerate(pool.map(rank, *zip(*queries, strict=True))):
            ranks[i] = found
            if progress is not None:
                progress(i + 1)
    return Retrieval(
        num_queries=len(ranks),
        r1=float(np.mean(ranks <= 1)),
        r5=float(np.mean(ranks <= 5)),
        r10=float(np.mean(ranks <= 10)),
        median_rank=float(np.median(ranks)),
    )
