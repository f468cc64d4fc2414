"""One unchanging view of a collection: the newest generation and the rows after it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from .records import Collection, Item, Matches

if TYPE_CHECKING:
    import pyarrow as pa


class ItemIds(Sequence[str]):
    """Item ids by ordinal, read from mapped memory one by one."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """The id of an ordinal, or a list of them."""
        raise NotImplementedError

    def __len__(self) -> int:
        """The number of items."""
        raise NotImplementedError

    def take(self, ordinals: NDArray[np.integer]) -> list[str]:
        """The ids of (n,) ordinals."""
        raise NotImplementedError


class Snapshot:
    """What one search sees: immutable, safe to use from many threads, cheap to get again.

    Items have ordinals `0 .. num_items - 1`; each view has rows `0 .. num_rows(view) - 1`. Both are without
    gaps (removed and re-indexed items are gone) and mean something in this snapshot only.
    """

    collection: Collection
    generation: str | None
    revision: int
    num_items: int
    item_ids: ItemIds

    @property
    def attributes(self) -> "pa.Table":
        """Row i holds the attributes of item ordinal i; one column per key, null where absent."""
        raise NotImplementedError

    def num_rows(self, view: str) -> int:
        """How many rows the view holds. Raises QueryError for a view the collection does not have."""
        raise NotImplementedError

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
        raise NotImplementedError

    def vectors(self, space: str, view: str, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n, D) float32 vectors of rows of a view, exactly as stored in float16."""
        raise NotImplementedError

    def tokens(self, space: str, view: str, rows: NDArray[np.integer]) -> NDArray[np.uint16]:
        """(n, num_tokens) uint16 token ids of rows of a view."""
        raise NotImplementedError

    def items_of(self, view: str, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """(n,) item ordinals of rows of a view."""
        raise NotImplementedError

    def rows_of(self, view: str, ordinals: NDArray[np.integer]) -> NDArray[np.int64]:
        """All rows of a view that belong to those items, item by item; none for items without the view."""
        raise NotImplementedError

    def regions_of(self, view: str, rows: NDArray[np.integer]) -> list[str | None]:
        """The region of each row, None for the whole item."""
        raise NotImplementedError

    def ordinals_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """(n,) item ordinals of ids, -1 where the snapshot has no such item."""
        raise NotImplementedError

    def items(self, ids: Sequence[str]) -> list[Item]:
        """The catalog's items of those ids, in that order; ids removed meanwhile are left out."""
        raise NotImplementedError
