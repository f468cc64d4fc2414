"""Recall, latency and size of what is published."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import QueryError
from anyseek.search.evaluation import IndexSettings, evaluate_index
from anyseek.search.evaluation.tables import index_tables
from anyseek.storage import Matches, Snapshot

QUICK = IndexSettings(limit=20, selectivities=(0.1, 0.5))


def test_a_flat_index_finds_everything(library: Any) -> None:
    report = evaluate_index(library.store, "photos", QUICK)
    assert {(index.space, index.view) for index in report.indexes} == {
        (space, view) for space in ("dinov2_global", "imagebind_global") for view in ("joint", "caption")
    }
    for index in report.indexes:
        assert [search.num_allowed for search in index.searches] == [60, 6, 30]
        assert all(set(search.recall.values()) == {1.0} for search in index.searches)
        assert 0 < index.searches[0].latency_ms.p50 <= index.searches[0].latency_ms.p99
        assert index.num_rows == 60
    assert report.num_fresh == 10


def test_bytes_are_those_of_the_files(library: Any) -> None:
    report = evaluate_index(library.store, "photos", QUICK)
    snapshot = library.store.snapshot("photos")
    folder = library.store.path / "collections" / snapshot.collection.id
    files = [file for file in (folder / "generations" / snapshot.generation).iterdir() if file.is_file()]
    assert report.generation_bytes == sum(file.stat().st_size for file in files)
    assert report.segment_bytes == sum(file.stat().st_size for file in (folder / "segments").iterdir())
    of_indexes = sum(index.index_bytes + index.token_bytes for index in report.indexes)
    assert 0 < of_indexes < report.generation_bytes


def test_an_index_that_loses_rows_is_found_out(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that never returns an even row finds about half, with filters too."""
    search = Snapshot.search

    def lossy(self: Snapshot, space: str, view: str, queries: Any, k: int, allowed: Any = None) -> Matches:
        found = search(self, space, view, queries, 60, allowed)
        scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)
        for i, of_query in enumerate(found.rows):
            odd = np.flatnonzero(of_query % 2 == 1)[:k]  # -1, no row, is odd, and has no score
            scores[i, : len(odd)], rows[i, : len(odd)] = found.scores[i, odd], of_query[odd]
        return Matches(scores, rows)

    monkeypatch.setattr(Snapshot, "search", lossy)
    for index in evaluate_index(library.store, "photos", QUICK).indexes:
        assert index.searches[0].recall[100] == 0.5
        for search_of in index.searches:
            assert 0.2 < search_of.recall[100] < 0.95


def test_the_report_is_json_with_a_schema(library: Any) -> None:
    report = evaluate_index(library.store, "photos", QUICK)
    told = json.loads(json.dumps(report.to_json()))
    assert told["schema"] == "anyseek.index/1"
    assert set(told["indexes"][0]["searches"][0]["recall"]) == {"1", "10", "100"}
    assert [len(rows) for _, rows in index_tables(report)] == [4, 8]


def test_a_single_view_is_asked_with_noise(library: Any) -> None:
    with_other = evaluate_index(library.store, "photos", IndexSettings(limit=5, views=["joint"]))
    assert "view caption" in with_other.indexes[0].queries


def test_before_anything_is_published_rows_are_searched_all_the_same(
    tmp_path: Path, make_library: Callable[..., Any]
) -> None:
    (tmp_path / "fresh").mkdir()
    made = make_library(tmp_path / "fresh", 8, fresh=8)
    report = evaluate_index(made.store, "photos", QUICK)
    assert (report.generation, report.generation_bytes, report.num_fresh) == (None, 0, 8)
    assert all(index.searches[0].recall[10] == 1 for index in report.indexes)
    made.store.close()


def test_senseless_settings_are_refused(library: Any) -> None:
    with pytest.raises(ValueError, match="limit"):
        evaluate_index(library.store, "photos", IndexSettings(limit=0))
    with pytest.raises(ValueError, match="selectivities"):
        evaluate_index(library.store, "photos", IndexSettings(selectivities=(0.0,)))
    with pytest.raises(QueryError, match="joint"):
        evaluate_index(library.store, "photos", IndexSettings(views=["depth"]))
