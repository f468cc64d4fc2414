"""What an index over the vectors of one space and view must do."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import Matches


class VectorIndex(Protocol):
    """Rows `0 .. num_rows - 1` of D-dimensional vectors, by inner product; safe from many threads."""

    @property
    def num_rows(self) -> int:
        """How many vectors it holds."""
        ...

    @property
    def dim(self) -> int:
        """D, the length of each vector."""
        ...

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> Matches:
        """The best `k` rows for each of (Q, D) queries; `allowed` is (num_rows,) bool."""
        ...

    def bare_search(self, queries: NDArray[np.float32], k: int) -> None:
        """The library's own call for the same, and nothing around it: what `search` is measured against."""
        ...

    def vectors(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n, D) float32 vectors of rows, as precise as the segments keep them."""
        ...
