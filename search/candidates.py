"""Which rows are worth scoring exactly, and whether that left nothing out.

Few allowed rows are all scored. Many are proposed by the index of each space, which is asked once, for the
sum of the query's directions there. Rows that no list contains have in every space at most the last score of
its list; while the k-th score found is not above the sum of those bounds the lists are made longer, so the
answer is exact wherever that ends in time, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..errors import QueryError
from ..storage import Snapshot
from .filters import Mask
from .ranking import (
    Floats,
    Ints,
    StoredRows,
    Term,
    best_row_of_each_item,
    directions,
    measure_rows,
    scores_of,
)

SCAN_ROWS = 10_000
"""Allowed rows up to which all are scored. Measured: reading and scoring 10,000 rows in two spaces takes
about as long as the model needs for the query."""

FIRST_DEPTH = 256
MAX_DEPTH = 16_384
_SLACK = 1e-5
"""How far a score of an index may lie from ours: it sums in another order."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Items scored exactly.

    Args:
        ordinals: (n,) item ordinals, each once.
        rows: (n,) the best row of each.
        scores: (n,) float64.
        num_scored: rows scored to get there.
        how: `scan` or `index`.
        exact: whether the best k of these are the best k of all allowed items.
    """

    ordinals: Ints
    rows: Ints
    scores: Floats
    num_scored: int
    how: Literal["scan", "index"]
    exact: bool


def stored_rows(snapshot: Snapshot, view: str) -> StoredRows:
    """The rows of one view of a snapshot."""
    return StoredRows(
        lambda space, rows: snapshot.vectors(space, view, rows),
        lambda space, rows: snapshot.tokens(space, view, rows),
    )


def scored_candidates(
    snapshot: Snapshot, view: str, terms: list[Term], k: int, allowed: Mask | None
) -> Scored:
    """Score what may belong to the best k items of a view.

    Args:
        snapshot: where to look.
        view: which rows.
        terms: the summands of the score.
        k: how many items are wanted.
        allowed: (num_items,) bool, None for all.

    Raises:
        QueryError: the parts cancel each other, so that nothing is left to rank by.
    """
    towards = directions(terms)
    if all(np.linalg.norm(direction) < 1e-6 for direction in towards.values()):
        raise QueryError("The parts of the query cancel each other; nothing is left to rank by.")
    num_rows = snapshot.num_rows(view)
    if num_rows <= SCAN_ROWS or (allowed is not None and np.count_nonzero(allowed) <= SCAN_ROWS):
        rows = np.arange(num_rows) if allowed is None else snapshot.rows_of(view, np.flatnonzero(allowed))
        return _score(snapshot, view, terms, rows, "scan", exact=True)
    return _from_indexes(snapshot, view, terms, towards, k, allowed)


def _from_indexes(
    snapshot: Snapshot, view: str, terms: list[Term], towards: dict[str, Floats], k: int, allowed: Mask | None
) -> Scored:
    bounded = all(term.measure == "cosine" for term in terms)  # likelihood has no list to bound it
    # Depths are fixed steps: pages of one query share their candidates, and so their order.
    depth = FIRST_DEPTH if bounded else 4 * FIRST_DEPTH
    while depth < 4 * k:
        depth *= 4
    while True:
        lists = {
            space: _search(snapshot, space, view, direction, depth, allowed)
            for space, direction in towards.items()
        }
        rows = np.unique(np.concatenate([rows for rows, _ in lists.values()]))
        complete = any(len(found) < depth for found, _ in lists.values())
        scored = _score(snapshot, view, terms, rows, "index", exact=complete)
        if complete or not bounded:
            return scored
        bound = sum(last for _, last in lists.values())
        if len(scored.scores) >= k and np.partition(scored.scores, -k)[-k] > bound + _SLACK:
            return replace(scored, exact=True)
        if depth >= MAX_DEPTH:
            return scored
        depth *= 4


def _search(
    snapshot: Snapshot, space: str, view: str, direction: Floats, depth: int, allowed: Mask | None
) -> tuple[Ints, float]:
    """Rows of the index's list and the most that a row outside it can have in this space."""
    norm = float(np.linalg.norm(direction))
    if norm < 1e-12:
        unit = np.zeros((1, len(direction)), dtype=np.float32)
        unit[0, 0] = 1
    else:
        unit = (direction / norm).astype(np.float32)[None]
    matches = snapshot.search(space, view, unit, depth, allowed)
    rows = matches.rows[0][matches.rows[0] >= 0]
    return rows, norm * float(matches.scores[0][len(rows) - 1]) if len(rows) else 0.0


def _score(
    snapshot: Snapshot,
    view: str,
    terms: list[Term],
    rows: Ints,
    how: Literal["scan", "index"],
    *,
    exact: bool,
) -> Scored:
    if not len(rows):
        nothing = np.empty(0, dtype=np.int64)
        return Scored(nothing, nothing, np.empty(0), 0, how, exact)
    scores = scores_of(terms, measure_rows(terms, stored_rows(snapshot, view), rows))
    ordinals = snapshot.items_of(view, rows)
    best = best_row_of_each_item(ordinals, scores)
    return Scored(ordinals[best], rows[best], scores[best], len(rows), how, exact)
