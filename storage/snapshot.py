"""One unchanging view of a collection: the newest generation and the rows after it."""

import logging
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import QueryError
from .attributes import schema
from .catalog import Catalog
from .parts import LivePart, PartView
from .records import Collection, Item, Matches, SpaceRecord
from .vectors import best, search_exactly

_log = logging.getLogger(__name__)


class ItemIds(Sequence[str]):
    """Item ids by ordinal, read from mapped memory one by one."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """The id of an ordinal, or a list of them."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        # Arrow takes a Python int only, and np.int64 is what ordinals come in.
        return self._column[operator.index(index)].as_py()

    def __len__(self) -> int:
        """The number of items."""
        return len(self._column)

    def __iter__(self) -> Iterator[str]:
        """Every id, by ordinal."""
        for chunk in self._column.chunks:
            yield from chunk.to_pylist()

    def take(self, ordinals: NDArray[np.integer]) -> list[str]:
        """The ids of (n,) ordinals."""
        return [self._column[ordinal].as_py() for ordinal in ordinals.tolist()]

    def find(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """(n,) ordinals of ids, -1 for those not here."""
        wanted = pc.index_in(self._column, value_set=pa.array(list(ids), pa.string()))
        ordinals = np.flatnonzero(wanted.is_valid().to_numpy())
        found = dict(zip(self.take(ordinals), ordinals.tolist(), strict=True))
        return np.array([found.get(id, -1) for id in ids], np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """The rows of a view in one part: `start .. stop - 1` in the snapshot, `live` (None: all) in the part."""

    view: PartView
    start: int
    stop: int
    live: NDArray[np.int64] | None

    def local(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Rows of the snapshot as rows of the part."""
        rows = rows.astype(np.int64) - self.start
        return rows if self.live is None else self.live[rows]

    def mask(self, allowed: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """Which rows of the part may be returned, given (stop - start,) bool for those of the snapshot."""
        if self.live is None:
            return allowed
        mask = np.zeros(len(self.view.items), np.bool_)
        mask[self.live] = True if allowed is None else allowed
        return mask

    def search(
        self, space: str, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> Matches:
        """The best rows here, numbered as in the snapshot."""
        index = self.view.indexes[space]
        mask = self.mask(allowed)
        matches = index.search(queries, k, mask)
        if mask is not None and not np.all(mask[matches.rows[matches.rows >= 0]]):
            # FAISS has dropped selectors without a word before (its issues 5504 and 5584).
            _log.error("The index of %s ignores the rows it may return; searching without it.", space)
            rows = np.flatnonzero(mask)
            matches = search_exactly(index.vectors(rows), rows, queries, k)
        rows = matches.rows if self.live is None else np.searchsorted(self.live, matches.rows)
        return Matches(matches.scores, np.where(matches.rows < 0, -1, rows + self.start))


class _ViewRows:
    """All rows of a view: where they lie, and the item ordinal of each."""

    def __init__(self, pieces: Sequence[_Piece], items: NDArray[np.int64]) -> None:
        self.pieces = pieces
        self.items = items
        self.num_rows = len(items)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The rows in the order of their items."""
        return np.argsort(self.items, kind="stable")

    @cached_property
    def _is_one_to_one(self) -> bool:
        return bool(np.all(self.items == np.arange(self.num_rows)))

    def allowed(self, items: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which rows are allowed, given which items are."""
        if self._is_one_to_one:
            return items[: self.num_rows]
        return items[self.items]


class Snapshot:
    """What one search sees: immutable, safe to use from many threads, cheap to get again.

    Items have ordinals `0 .. num_items - 1`; each view has rows `0 .. num_rows(view) - 1`. Both are without
    gaps (removed and re-indexed items are gone) and mean something in this snapshot only.

    Args:
        collection: as it was; `revision` names what this snapshot sees of it.
        generation: name of the generation it starts from, None when it reads segments only.
        parts: the items and rows.
        catalog: where `items` asks.
    """

    def __init__(
        self, collection: Collection, generation: str | None, parts: Sequence[LivePart], catalog: Catalog
    ) -> None:
        self.collection = collection
        self.generation = generation
        self.revision = collection.revision
        self.parts = tuple(parts)
        self.num_items = sum(part.num_live for part in parts)
        self._catalog = catalog
        self._views: dict[str, _ViewRows] = {}

    @cached_property
    def item_ids(self) -> ItemIds:
        """Item ids by ordinal."""
        return ItemIds(
            pa.chunked_array([chunk for part in self.parts for chunk in part.ids().chunks], pa.string())
        )

    @cached_property
    def attributes(self) -> pa.Table:
        """Row i holds the attributes of item ordinal i; one column per key, null where absent."""
        types = self.collection.attributes
        tables = [part.table(types) for part in self.parts]
        return pa.concat_tables([schema(types).empty_table(), *tables]).select(list(types))

    def num_rows(self, view: str) -> int:
        """How many rows the view holds. Raises QueryError for a view the collection does not have."""
        return self._view(view).num_rows

    def search(
        self,
        space: str,
        view: str,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Matches:
        """The k best rows of a view for each query, exactly.

        Args:
            space: an embedding space of the collection.
            view: a view of the collection.
            queries: (Q, D) float32, L2-normalised.
            k: at least 1.
            allowed: (num_items,) bool: the item ordinals that may be returned.

        Raises:
            QueryError: unknown space or view, or a query of another shape.
        """
        rows = self._view(view)
        self._check(self._space(space), queries, k, allowed)
        of_rows = None if allowed is None else rows.allowed(allowed)
        found = [
            piece.search(space, queries, k, None if of_rows is None else of_rows[piece.start : piece.stop])
            for piece in rows.pieces
        ]
        if not found:
            return Matches.none(len(queries), k)
        if len(found) == 1:
            return found[0]
        scores = np.concatenate([matches.scores for matches in found], axis=1)
        return best(scores, np.concatenate([matches.rows for matches in found], axis=1), k)

    def bare_search(self, space: str, view: str, queries: NDArray[np.float32], k: int) -> None:
        """The index library's own calls behind `search`, with no check, order or filter around them."""
        for piece in self._view(view).pieces:
            piece.view.indexes[space].bare_search(queries, k)

    def vectors(self, space: str, view: str, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n, D) float32 vectors of rows of a view, exactly as stored in float16."""
        vectors = np.empty((len(rows), self._space(space).dim), np.float32)
        for piece, chosen in self._located(view, rows):
            vectors[chosen] = piece.view.indexes[space].vectors(piece.local(rows[chosen]))
        return vectors

    def tokens(self, space: str, view: str, rows: NDArray[np.integer]) -> NDArray[np.uint16]:
        """(n, num_tokens) uint16 token ids of rows of a view."""
        tokens = np.empty((len(rows), self._space(space).num_tokens), np.uint16)
        for piece, chosen in self._located(view, rows):
            tokens[chosen] = piece.view.tokens[space][piece.local(rows[chosen])]
        return tokens

    def regions_of(self, view: str, rows: NDArray[np.integer]) -> list[str | None]:
        """The region of each row, None for the whole item."""
        regions = np.empty(len(rows), object)
        for piece, chosen in self._located(view, rows):
            regions[chosen] = piece.view.regions.take(pa.array(piece.local(rows[chosen]))).to_pylist()
        return regions.tolist()

    def items_of(self, view: str, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """(n,) item ordinals of rows of a view."""
        view_rows = self._view(view)
        _check_range(rows, view_rows.num_rows, "row")
        return view_rows.items[rows]

    def rows_of(self, view: str, ordinals: NDArray[np.integer]) -> NDArray[np.int64]:
        """All rows of a view that belong to those items, item by item; none for items without the view."""
        _check_range(ordinals, self.num_items, "item ordinal")
        rows = self._view(view)
        starts = np.searchsorted(rows.items, ordinals, "left", sorter=rows.order)
        stops = np.searchsorted(rows.items, ordinals, "right", sorter=rows.order)
        lengths = stops - starts
        # Position within each item's run, for all runs at once.
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows.order[np.repeat(starts, lengths) + within]

    def ordinals_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """(n,) item ordinals of ids, -1 where the snapshot has no such item."""
        return self.item_ids.find(ids)

    def items(self, ids: Sequence[str]) -> list[Item]:
        """The catalog's items of those ids, in that order; ids removed meanwhile are left out."""
        return self._catalog.items(self.collection.name, ids)

    def _view(self, view: str) -> _ViewRows:
        if view not in self._views:
            if view not in self.collection.views:
                raise QueryError(
                    f"Collection '{self.collection.name}' has no view '{view}'; "
                    f"it has {', '.join(self.collection.views)}."
                )
            self._views[view] = _view_rows(self.parts, view)
        return self._views[view]

    def _space(self, name: str) -> SpaceRecord:
        space = self.collection.space(name)
        if space is None:
            known = ", ".join(space.name for space in self.collection.spaces)
            raise QueryError(f"Collection '{self.collection.name}' has no space '{name}'; it has {known}.")
        return space

    def _check(
        self, space: SpaceRecord, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> None:
        if queries.ndim != 2 or queries.shape[1] != space.dim:
            raise QueryError(
                f"Collection '{self.collection.name}' holds {space.dim}-d vectors in {space.name}, "
                f"got queries of shape {queries.shape}; embed them with the model '{self.collection.model}'."
            )
        if not np.all(np.isfinite(queries)):
            raise QueryError(f"A query vector in {space.name} is not finite.")
        if k < 1:
            raise QueryError(f"At least 1 match must be asked for; got {k}.")
        if allowed is not None and (allowed.shape != (self.num_items,) or allowed.dtype != np.bool_):
            raise QueryError(
                f"What is allowed must be bool of shape ({self.num_items},), one per item of this snapshot; "
                f"got {allowed.dtype} of shape {allowed.shape}."
            )

    def _located(self, view: str, rows: NDArray[np.integer]) -> Iterator[tuple[_Piece, NDArray[np.int64]]]:
        view_rows = self._view(view)
        _check_range(rows, view_rows.num_rows, "row")
        for piece in view_rows.pieces:
            yield piece, np.flatnonzero((rows >= piece.start) & (rows < piece.stop))


def _view_rows(parts: Sequence[LivePart], name: str) -> _ViewRows:
    pieces: list[_Piece] = []
    items = [np.empty(0, np.int64)]
    num_items = num_rows = 0
    for part in parts:
        view = part.part.views.get(name)
        if view is not None:
            live = part.live_rows(view)
            owners = view.items if live is None else view.items[live]
            items.append(part.positions()[owners] + num_items)
            pieces.append(_Piece(view, num_rows, num_rows + len(owners), live))
            num_rows += len(owners)
        num_items += part.num_live
    return _ViewRows(pieces, np.concatenate(items))


def _check_range(numbers: NDArray[np.integer], end: int, what: str) -> None:
    # A padding row of -1 would otherwise read the last one.
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= end):
        raise IndexError(f"The snapshot has {what}s 0..{end - 1}; got {numbers.min()} to {numbers.max()}.")
