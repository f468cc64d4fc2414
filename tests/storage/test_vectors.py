"""Every VectorIndex passes one suite, also the one here that looks at every vector."""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from anyseek.errors import CorruptError
from anyseek.storage import Matches, VectorIndex
from anyseek.storage.vectors import FaissIndex
from numpy.typing import NDArray

Build = Callable[[NDArray[np.float16]], VectorIndex]


class BruteIndex:
    """The protocol in the fewest words."""

    def __init__(self, vectors: NDArray[np.float16]) -> None:
        self._vectors = vectors.astype(np.float32)
        self.num_rows, self.dim = vectors.shape

    def search(self, queries: NDArray, k: int, allowed: NDArray | None = None) -> Matches:
        found = Matches.none(len(queries), k)
        rows = np.arange(self.num_rows) if allowed is None else np.flatnonzero(allowed)
        for number, query in enumerate(queries):
            # Not a matrix product: it may round equal rows differently.
            scores = (self._vectors[rows] * query).sum(axis=1)
            order = np.lexsort((rows, -scores))[:k]
            found.scores[number, : len(order)] = scores[order]
            found.rows[number, : len(order)] = rows[order]
        return found

    def vectors(self, rows: NDArray) -> NDArray[np.float32]:
        return self._vectors[rows]


def _in_memory(vectors: NDArray[np.float16]) -> FaissIndex:
    index = FaissIndex.empty(vectors.shape[1])
    index.add(vectors)
    return index


@pytest.fixture(params=["brute", "faiss in memory", "faiss mapped"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Build:
    def mapped(vectors: NDArray[np.float16]) -> FaissIndex:
        _in_memory(vectors).save(tmp_path / "index.faiss")
        return FaissIndex.load(tmp_path / "index.faiss")

    return {"brute": BruteIndex, "faiss in memory": _in_memory, "faiss mapped": mapped}[request.param]


def _unit(rng: np.random.Generator, num: int, dim: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((num, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def vectors() -> NDArray[np.float16]:
    return _unit(np.random.default_rng(1), 700, 16).astype(np.float16)


@pytest.fixture
def queries() -> NDArray[np.float32]:
    return _unit(np.random.default_rng(2), 5, 16)


def _agree(found: Matches, expected: Matches) -> None:
    assert found.scores.dtype == np.float32
    assert found.rows.dtype == np.int64
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize("k", [1, 10, 699, 700, 900])
def test_best_rows_are_those_of_brute_force(build: Build, vectors: NDArray, queries: NDArray, k: int) -> None:
    _agree(build(vectors).search(queries, k), BruteIndex(vectors).search(queries, k))


@pytest.mark.parametrize("share", [0.0, 0.003, 0.01, 0.1, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("num_queries", [1, 5])
def test_only_allowed_rows_are_returned(
    build: Build, vectors: NDArray, queries: NDArray, share: float, num_queries: int
) -> None:
    allowed = np.random.default_rng(3).random(700) < share
    found = build(vectors).search(queries[:num_queries], 20, allowed)
    _agree(found, BruteIndex(vectors).search(queries[:num_queries], 20, allowed))


@pytest.mark.parametrize("share", [1.0, 0.6, 0.05])
def test_equal_scores_are_cut_by_row_at_any_k(build: Build, queries: NDArray, share: float) -> None:
    copies = np.repeat(_unit(np.random.default_rng(4), 6, 16), 60, axis=0).astype(np.float16)
    copies = copies[np.random.default_rng(5).permutation(len(copies))]
    allowed = np.random.default_rng(6).random(len(copies)) < share
    index = build(copies)
    longest = index.search(queries, len(copies), allowed)
    for k in (1, 7, 30, 61, 200):
        np.testing.assert_array_equal(index.search(queries, k, allowed).rows, longest.rows[:, :k])
    _agree(longest, BruteIndex(copies).search(queries, len(copies), allowed))


def test_a_batch_equals_one_by_one(build: Build, vectors: NDArray, queries: NDArray) -> None:
    index = build(vectors)
    together = index.search(queries, 10)
    for number, query in enumerate(queries):
        _agree(index.search(query[None], 10), Matches(together.scores[[number]], together.rows[[number]]))


def test_vectors_come_back_as_they_were_stored(build: Build, vectors: NDArray) -> None:
    rows = np.array([3, 3, 699, 0])
    np.testing.assert_array_equal(build(vectors).vectors(rows), vectors[rows].astype(np.float32))
    assert build(vectors).vectors(rows[:0]).shape == (0, 16)


def test_an_empty_index_has_no_matches(build: Build, queries: NDArray) -> None:
    index = build(np.empty((0, 16), np.float16))
    assert index.num_rows == 0
    assert np.all(index.search(queries, 3).rows == -1)
    assert np.all(np.isneginf(index.search(queries, 3, np.empty(0, np.bool_)).scores))


def test_no_queries_give_no_matches(build: Build, vectors: NDArray, queries: NDArray) -> None:
    assert build(vectors).search(queries[:0], 3).rows.shape == (0, 3)


def test_a_truncated_file_is_refused(tmp_path: Path, vectors: NDArray) -> None:
    path = tmp_path / "index.faiss"
    _in_memory(vectors).save(path)
    for length in (0, 3, 40, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(CorruptError, match=r"index\.faiss"):
            FaissIndex.load(path)


def test_another_kind_of_index_is_refused(tmp_path: Path, vectors: NDArray) -> None:
    flat = faiss.IndexFlatIP(16)
    flat.add(vectors.astype(np.float32))
    faiss.write_index(flat, str(tmp_path / "flat.faiss"))
    with pytest.raises(CorruptError, match="not a flat float16 index"):
        FaissIndex.load(tmp_path / "flat.faiss")


def test_a_file_cannot_ask_for_more_memory_than_its_size(tmp_path: Path, vectors: NDArray) -> None:
    path = tmp_path / "index.faiss"
    _in_memory(vectors).save(path)
    content = bytearray(path.read_bytes())
    start = content.index((700 * 32).to_bytes(8, "little"))
    content[start : start + 8] = (1 << 40).to_bytes(8, "little")
    path.write_bytes(content)
    limit = faiss.get_deserialization_vector_byte_limit()
    with pytest.raises(CorruptError):
        FaissIndex.load(path)
    assert faiss.get_deserialization_vector_byte_limit() == limit
