"""A flat FAISS index of float16 vectors: exact for what segments hold, and mapped rather than read.

Float16 in, float16 out: nothing is lost against float32, at half the memory and twice the speed, as a scan is
bound by memory (100,000 x 256 and x 768, one thread: 2.4 and 7.3 ms a query against 5.0 and 14.8 ms).
"""

import threading
from pathlib import Path
from typing import Self

import faiss
import numpy as np
from numpy.typing import NDArray

from ...errors import CorruptError, StorageError
from ..records import Matches
from .exact import best, search_exactly

# FAISS keeps its limit on what a file may ask it to allocate in one global.
_limit_lock = threading.Lock()

# Reading out a component costs about two looks at a bit of the selector (measured at 256-d and 768-d)...
_GATHER_COST = 2
# ...and is worth it only while it takes little memory: 64 MiB of float32.
_GATHER_LIMIT = 1 << 24


class FaissIndex:
    """Rows of (N, D) float16 vectors, searched exactly by inner product."""

    def __init__(self, index: faiss.IndexScalarQuantizer) -> None:
        self._index = index
        self.num_rows: int = index.ntotal
        self.dim: int = index.d

    @classmethod
    def empty(cls, dim: int) -> Self:
        """An index to fill with `add`."""
        kind = faiss.ScalarQuantizer.QT_fp16
        return cls(faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT))

    def add(self, vectors: NDArray[np.float16]) -> None:
        """Append (n, D) float16 vectors; only before the index is shared between threads."""
        self._index.add(vectors.astype(np.float32))
        self.num_rows = self._index.ntotal

    def save(self, path: Path) -> None:
        """Write it to a file. Raises StorageError when the disk is full or not writable."""
        try:
            faiss.write_index(self._index, str(path))
        except RuntimeError as error:
            raise StorageError(f"Cannot write the index '{path}': {error}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Map a file whose checksum was compared before. Raises CorruptError when it cannot be parsed."""
        with _limit_lock:
            limit = faiss.get_deserialization_vector_byte_limit()
            faiss.set_deserialization_vector_byte_limit(path.stat().st_size)
            try:
                index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
            except RuntimeError as error:
                raise CorruptError(f"Cannot read the index '{path}': {error}") from error
            finally:
                faiss.set_deserialization_vector_byte_limit(limit)
        if (
            not isinstance(index, faiss.IndexScalarQuantizer)
            or index.codes.size() != index.ntotal * index.d * 2
        ):
            raise CorruptError(f"The index '{path}' is not a flat float16 index.")
        return cls(index)

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> Matches:
        """The best `k` rows for each of (Q, D) queries; `allowed` is (num_rows,) bool."""
        queries = np.ascontiguousarray(queries, np.float32)
        num_allowed = self.num_rows if allowed is None else int(np.count_nonzero(allowed))
        if not num_allowed or not len(queries):
            return Matches.none(len(queries), k)
        if allowed is None or num_allowed == self.num_rows:
            return self._scan(queries, k, self.num_rows, None)
        if self._is_cheap_to_gather(num_allowed, len(queries)):
            rows = np.flatnonzero(allowed)
            return search_exactly(self.vectors(rows), rows, queries, k)
        bits = np.packbits(allowed, bitorder="little")
        # The module's types know the C++ constructors, not the ones it puts over them.
        selector = faiss.IDSelectorBitmap(bits)  # pyright: ignore[reportCallIssue]
        parameters = faiss.SearchParameters(sel=selector)  # pyright: ignore[reportCallIssue]
        return self._scan(queries, k, num_allowed, parameters)

    def bare_search(self, queries: NDArray[np.float32], k: int) -> None:
        """FAISS's own call, with ties as they come: what `search` is measured against."""
        self._index.search(queries, k)

    def _is_cheap_to_gather(self, num_allowed: int, num_queries: int) -> bool:
        if num_allowed * max(self.dim, num_queries) > _GATHER_LIMIT:
            return False
        return num_allowed * self.dim * _GATHER_COST <= num_queries * self.num_rows

    def _scan(
        self,
        queries: NDArray[np.float32],
        k: int,
        num_allowed: int,
        parameters: faiss.SearchParameters | None,
    ) -> Matches:
        # FAISS cuts equal scores without regard to rows. Copies of one picture are equal, and pages are cut
        # at any k: so look one further, and on while the k-th and the last are equal.
        last = min(k, num_allowed) - 1
        num_wanted = min(k + 1, num_allowed)
        while True:
            scores, rows = self._index.search(queries, num_wanted, params=parameters)
            if num_wanted == num_allowed or not np.any(scores[:, -1] == scores[:, last]):
                return best(scores, rows, k)
            num_wanted = min(4 * num_wanted, num_allowed)

    def vectors(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n, D) float32 vectors of rows, exactly as stored in float16."""
        return self._codes()[rows].astype(np.float32)

    def _codes(self) -> NDArray[np.float16]:
        # A view of the index's own memory, valid while `self` lives; may be unaligned in a mapped file.
        if not self.num_rows:
            return np.empty((0, self.dim), np.float16)
        codes = faiss.rev_swig_ptr(self._index.codes.data(), self.num_rows * self.dim * 2)
        return codes.view(np.float16).reshape(self.num_rows, self.dim)
