"""Parts: what a snapshot is made of. A generation is one; the rows committed after it are a few more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .attributes import ID_COLUMN, conform, to_table
from .catalog import LiveItem
from .records import Collection
from .segments import SegmentRows
from .vectors import FaissIndex, VectorIndex


@dataclass(frozen=True, slots=True, eq=False)
class PartView:
    """The rows of one view in a part.

    Args:
        items: (n,) int32, the position in the part of each row's item.
        regions: Arrow array of n texts, null for the whole item.
        indexes: per space, an index over the n rows.
        tokens: per space (n, num_tokens) uint16.
    """

    items: NDArray[np.int32]
    regions: pa.Array
    indexes: Mapping[str, VectorIndex]
    tokens: Mapping[str, NDArray[np.uint16]]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Items and their rows as they were at some revision; immutable.

    Args:
        table: ids and attributes, one line per item (see `attributes.to_table`).
        views: the views that have rows.
    """

    table: pa.Table
    views: Mapping[str, PartView] = field(default_factory=dict[str, PartView])

    @property
    def num_items(self) -> int:
        """How many items it holds, live or not."""
        return self.table.num_rows

    def where(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """(num_items,) bool: which of its items have one of these ids."""
        column = self.table.column(ID_COLUMN)
        return pc.is_in(column, value_set=pa.array(ids, pa.string())).to_numpy()


@dataclass(frozen=True, slots=True, eq=False)
class LivePart:
    """A part and which of its items still live: (num_items,) bool, None where all do."""

    part: Part
    alive: NDArray[np.bool_] | None = None

    @property
    def num_live(self) -> int:
        """How many of its items live."""
        return self.part.num_items if self.alive is None else int(np.count_nonzero(self.alive))

    def without(self, ids: Sequence[str]) -> "LivePart":
        """The same part after some items were removed or replaced."""
        dead = self.part.where(ids)
        if not dead.any():
            return self
        return LivePart(self.part, ~dead if self.alive is None else self.alive & ~dead)

    def ids(self) -> pa.ChunkedArray:
        """The ids of its live items."""
        column = self.part.table.column(ID_COLUMN)
        return column if self.alive is None else column.filter(pa.array(self.alive))

    def table(self, types: Mapping[str, str]) -> pa.Table:
        """Its live items with the columns of these attribute types."""
        table = conform(self.part.table, types)
        return table if self.alive is None else table.filter(pa.array(self.alive))

    def positions(self) -> NDArray[np.int64]:
        """(num_items,) the number of each item among the live ones; means nothing for dead ones."""
        if self.alive is None:
            return np.arange(self.part.num_items)
        return np.cumsum(self.alive) - 1

    def live_rows(self, view: PartView) -> NDArray[np.int64] | None:
        """The rows of one of its views whose items live, ascending; None where all do."""
        if self.alive is None:
            return None
        live = self.alive[view.items]
        return None if live.all() else np.flatnonzero(live)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Some rows of one view on their way into a part; `items` are positions in that part."""

    items: NDArray[np.int32]
    regions: pa.Array
    vectors: Mapping[str, NDArray[np.float16]]
    tokens: Mapping[str, NDArray[np.uint16]]


def rows_of_items(rows: SegmentRows, ids: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(rows of a segment that belong to some ids, position in `ids` of each)."""
    positions = pc.index_in(rows.items, value_set=pa.array(ids, pa.string()))
    found = np.flatnonzero(positions.is_valid().to_numpy(zero_copy_only=False))
    return found, positions.take(pa.array(found)).to_numpy(zero_copy_only=False).astype(np.int32)


def fresh_part(
    collection: Collection, items: Sequence[LiveItem], segments: Mapping[int, SegmentRows]
) -> Part:
    """A part in memory of items with their rows in segments, which hold all spaces of the collection.

    An item whose segment is not given has no rows.
    """
    positions: dict[int | None, list[int]] = {}
    for position, item in enumerate(items):
        positions.setdefault(item.segment, []).append(position)
    pieces: dict[str, list[_Piece]] = {view: [] for view in collection.views}
    for number, rows in segments.items():
        owners = np.array(positions.get(number, []), np.int32)
        live, local = rows_of_items(rows, [items[position].id for position in owners])
        views = rows.views.take(pa.array(live)).to_numpy(zero_copy_only=False)
        for view in set(views):
            chosen = np.flatnonzero(views == view)
            pieces[view].append(_segment_piece(rows, live[chosen], owners[local[chosen]]))
    table = to_table(collection.attributes, [item.id for item in items], [item.attributes for item in items])
    return Part(table, _views(collection, pieces))


def _segment_piece(rows: SegmentRows, chosen: NDArray[np.int64], items: NDArray[np.int32]) -> _Piece:
    return _Piece(
        items=items,
        regions=rows.regions.take(pa.array(chosen)),
        vectors={space: vectors[chosen] for space, vectors in rows.vectors.items()},
        tokens={space: tokens[chosen] for space, tokens in rows.tokens.items()},
    )


def merged(collection: Collection, parts: Sequence[LivePart]) -> Part:
    """One part in memory with the live items of several."""
    pieces: dict[str, list[_Piece]] = {view: [] for view in collection.views}
    num_items = 0
    for part in parts:
        positions = (part.positions() + num_items).astype(np.int32)
        for name, view in part.part.views.items():
            rows = part.live_rows(view)
            rows = np.arange(len(view.items)) if rows is None else rows
            pieces[name].append(_view_piece(view, rows, positions[view.items[rows]]))
        num_items += part.num_live
    table = pa.concat_tables([part.table(collection.attributes) for part in parts])
    return Part(table, _views(collection, pieces))


def _view_piece(view: PartView, rows: NDArray[np.int64], items: NDArray[np.int32]) -> _Piece:
    return _Piece(
        items=items,
        regions=view.regions.take(pa.array(rows)),
        vectors={space: index.vectors(rows).astype(np.float16) for space, index in view.indexes.items()},
        tokens={space: tokens[rows] for space, tokens in view.tokens.items()},
    )


def _views(collection: Collection, pieces: Mapping[str, Sequence[_Piece]]) -> dict[str, PartView]:
    return {
        view: _joined(collection, found)
        for view, found in pieces.items()
        if any(len(piece.items) for piece in found)
    }


def _joined(collection: Collection, pieces: Sequence[_Piece]) -> PartView:
    indexes: dict[str, VectorIndex] = {}
    for space in collection.spaces:
        index = FaissIndex.empty(space.dim)
        for piece in pieces:
            index.add(piece.vectors[space.name])
        indexes[space.name] = index
    return PartView(
        items=np.concatenate([piece.items for piece in pieces]),
        regions=pa.concat_arrays([piece.regions for piece in pieces]),
        indexes=indexes,
        tokens={
            space.name: np.concatenate([piece.tokens[space.name] for piece in pieces])
            for space in collection.spaces
        },
    )
