"""All vectors of a view, and the exact scores of many queries against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...storage import Snapshot
from ..ranking import Evidence, Floats, Ints, directions, joint_tables, terms_of

_ITEMS_PER_BLOCK = 16_384
_KEPT_BYTES = 1 << 28
"""A view whose vectors take less is read once, a larger one again for every batch of queries."""


@dataclass(frozen=True, eq=False)
class _Block:
    """Rows of the items `start` to `stop - 1`, those of an item together.

    Args:
        owners: (m,) items that have rows, ascending.
        firsts: (m,) the first row of each.
        vectors: per space (n, D) float32.
        tokens: per space (n, H).
    """

    owners: Ints
    firsts: Ints
    vectors: Mapping[str, Floats]
    tokens: Mapping[str, Ints]


class Gallery:
    """One view of a collection, to score every item of it.

    Args:
        snapshot: what is searched.
        view: which vectors of its items.
    """

    def __init__(self, snapshot: Snapshot, view: str) -> None:
        self.view = view
        self.num_items = snapshot.num_items
        self._snapshot = snapshot
        self._spaces = [space.name for space in snapshot.collection.spaces]
        num_bytes = snapshot.num_rows(view) * sum(
            4 * space.dim + 2 * space.num_tokens for space in snapshot.collection.spaces
        )
        self._kept = list(self._read()) if num_bytes <= _KEPT_BYTES else None

    def scores(
        self, queries: Sequence[Sequence[Evidence]], spaces: Mapping[str, float], likelihood_share: float
    ) -> Floats:
        """What the search engine's formula (ranking.py) gives to every item for each query.

        Args:
            queries: of each, the embeddings that it became.
            spaces: weight of each space; they add up to 1.
            likelihood_share: how much of the score is likelihood, 0..1; the rest is cosine.

        Returns:
            (Q, num_items) float32: of items with several rows the best one's, -inf for those without.
        """
        terms = [terms_of(evidence, spaces, likelihood_share) for evidence in queries]
        towards = _stacked([directions(each) for each in terms])
        tables = _stacked([joint_tables(each) for each in terms])
        scores = np.full((len(queries), self.num_items), -np.inf, np.float32)
        for block in self._kept if self._kept is not None else self._read():
            if len(block.owners):
                of_rows = _rows_scored(block, towards, tables, len(queries))
                scores[:, block.owners] = np.maximum.reduceat(of_rows, block.firsts, axis=1)
        return scores

    def _read(self) -> Iterator[_Block]:
        for start in range(0, self.num_items, _ITEMS_PER_BLOCK):
            ordinals = np.arange(start, min(start + _ITEMS_PER_BLOCK, self.num_items))
            rows = self._snapshot.rows_of(self.view, ordinals)
            owners, firsts = np.unique(self._snapshot.items_of(self.view, rows), return_index=True)
            yield _Block(
                owners,
                firsts,
                {space: self._snapshot.vectors(space, self.view, rows) for space in self._spaces},
                {space: self._snapshot.tokens(space, self.view, rows) for space in self._spaces},
            )


def _stacked(of_queries: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    return {
        space: np.stack([each[space] for each in of_queries]).astype(np.float32) for space in of_queries[0]
    }


def _rows_scored(
    block: _Block, towards: Mapping[str, Floats], tables: Mapping[str, Floats], num_queries: int
) -> Floats:
    num_rows = len(next(iter(block.vectors.values())))
    scores = np.zeros((num_queries, num_rows), np.float32)
    for space, vectors in towards.items():
        scores += vectors @ block.vectors[space].T
    for space, table in tables.items():  # (Q, H, V)
        num_heads = table.shape[1]
        for head in range(num_heads):
            scores += table[:, head, block.tokens[space][:, head]] / num_heads
    return scores
