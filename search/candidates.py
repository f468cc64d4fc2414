"""Which rows are worth scoring exactly, and whether that left nothing out.

Few allowed rows are all scored. Of many, these are scored: the lists of the best by cosine, from one look-up
in the index of each space for the sum of the query's directions there, and the best by likelihood, which is
16 look-ups in a table for every allowed row. A row in none of them has in every space at most the last cosine
of the list. Rows whose likelihood, with that bound, could still reach the k-th score found are scored too;
while there are too many of those, the lists are made longer. So the answer is exact wherever that ends in
time, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import QueryError
from ..model import likelihood
from ..storage import Snapshot
from .filters import Mask
from .ranking import (
    Floats,
    Ints,
    StoredRows,
    Term,
    best_row_of_each_item,
    directions,
    joint_tables,
    measure_rows,
    scores_of,
)

SCAN_ROWS = 1_000
"""Allowed rows up to which all are scored: reading their vectors takes as long as asking the indexes."""

LIKELIHOOD_ROWS = 200_000
"""Allowed rows up to which the likelihood of all is looked up, some 2 ms for 10,000."""

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
    towards, tables = directions(terms), joint_tables(terms)
    if all(np.linalg.norm(sums) < 1e-6 for sums in (*towards.values(), *tables.values())):
        raise QueryError("The parts of the query cancel each other; nothing is left to rank by.")
    num_rows = snapshot.num_rows(view) if allowed is None else int(np.count_nonzero(allowed))
    if num_rows <= SCAN_ROWS:
        return _score(snapshot, view, terms, _allowed_rows(snapshot, view, allowed), "scan", exact=True)
    if num_rows > LIKELIHOOD_ROWS and tables:
        # Too many to look up: the best by cosine, of the likelihood's embeddings where cosine has no share.
        towards = towards or directions(terms, "likelihood")
        rows, bound = _lists(snapshot, view, towards, _depth_for(4 * k), allowed)
        return _score(snapshot, view, terms, rows, "index", exact=bound is None)
    likely = _Likely.of(snapshot, view, tables, allowed) if tables else None
    depth = _depth_for(k)
    while True:
        rows, bound = _lists(snapshot, view, towards, depth, allowed)
        if likely is not None:
            rows = np.union1d(rows, likely.best(depth))
        scored = _score(snapshot, view, terms, rows, "index", exact=bound is None)
        if bound is None:
            return scored
        missed = _possibly_missed(scored.scores, rows, k, bound, likely)
        if missed is not None and len(missed) <= depth:
            return _score(snapshot, view, terms, np.union1d(rows, missed), "index", exact=True)
        if depth >= MAX_DEPTH:
            return scored
        depth *= 4


@dataclass(frozen=True, eq=False)
class _Likely:
    """What the likelihood terms together give to every allowed row: scores (n,) of rows (n,)."""

    rows: Ints
    scores: Floats

    @classmethod
    def of(cls, snapshot: Snapshot, view: str, tables: Mapping[str, Floats], allowed: Mask | None) -> _Likely:
        rows = _allowed_rows(snapshot, view, allowed)
        scores = np.zeros(len(rows))
        for space, table in tables.items():
            scores += likelihood(table, snapshot.tokens(space, view, rows))
        return cls(rows, scores)

    def best(self, n: int) -> Ints:
        return self.rows if n >= len(self.rows) else self.rows[np.argpartition(self.scores, -n)[-n:]]


def _possibly_missed(scores: Floats, rows: Ints, k: int, bound: float, likely: _Likely | None) -> Ints | None:
    """Rows beside the scored ones that could belong to the best k; None where that may be any.

    Args:
        scores: of the items scored.
        rows: scored already.
        k: how many are wanted.
        bound: the most that cosine terms can give to another row.
        likely: what likelihood terms give; None where they have no share.
    """
    if len(scores) < k:
        return None
    needed = np.partition(scores, -k)[-k] - bound - _SLACK
    if likely is None:
        return np.empty(0, dtype=np.int64) if needed > 0 else None
    return np.setdiff1d(likely.rows[likely.scores >= needed], rows)


def _depth_for(k: int) -> int:
    """Depths are fixed steps: where an answer is not exact, pages of a query still share their candidates."""
    depth = FIRST_DEPTH
    while depth < 4 * k:
        depth *= 4
    return depth


def _allowed_rows(snapshot: Snapshot, view: str, allowed: Mask | None) -> Ints:
    if allowed is None:
        return np.arange(snapshot.num_rows(view))
    return snapshot.rows_of(view, np.flatnonzero(allowed))


def _lists(
    snapshot: Snapshot, view: str, towards: Mapping[str, Floats], depth: int, allowed: Mask | None
) -> tuple[Ints, float | None]:
    """Rows that the indexes list, and the most that cosine can give to another, None if all are listed."""
    listed: list[Ints] = [np.empty(0, dtype=np.int64)]
    bound: float | None = 0.0
    for space, direction in towards.items():
        rows, last = _list(snapshot, space, view, direction, depth, allowed)
        listed.append(rows)
        bound = None if bound is None or len(rows) < depth else bound + last
    return np.unique(np.concatenate(listed)), bound


def _list(
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
