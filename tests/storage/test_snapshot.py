"""Snapshots: aligned, immutable, and honest about what they were asked."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from anyseek.errors import QueryError
from anyseek.storage import Matches, Snapshot, Store, Writer

IDS = [f"item {number}" for number in range(40)]


@pytest.fixture
def mixed(store: Store, writer: Writer, samples) -> Snapshot:
    """A generation with some items dead, and fresh rows in several parts; odd items also have `rgb`."""

    def add(ids: list[str], version: int = 0) -> None:
        pairs = [(id, view) for id in ids for view in ("joint", "rgb") if view == "joint" or int(id[5:]) % 2]
        items = samples.items(ids, version)
        writer.commit("photos", items=items, rows=samples.rows_of(pairs, version))

    add(IDS[:25])
    writer.publish("photos")
    add(IDS[25:35])
    writer.remove("photos", [IDS[3], IDS[30], IDS[4]])
    add([IDS[5], IDS[26], *IDS[35:]], version=1)
    return store.snapshot("photos")


def _version(id: str) -> int:
    return int(id in (IDS[5], IDS[26]) or id in IDS[35:])


def test_everything_is_aligned(mixed: Snapshot, samples) -> None:
    ids = list(mixed.item_ids)
    assert sorted(ids) == sorted(set(IDS) - {IDS[3], IDS[30], IDS[4]})
    assert len(ids) == mixed.num_items == len(mixed.item_ids) == mixed.attributes.num_rows
    assert mixed.attributes.column("name").to_pylist() == ids
    assert mixed.attributes.column("version").to_pylist() == [_version(id) for id in ids]
    for view in samples.views:
        rows = np.arange(mixed.num_rows(view))
        owners = [ids[ordinal] for ordinal in mixed.items_of(view, rows)]
        assert len(set(owners)) == len(owners)
        for space in ("dino", "bind"):
            vectors, tokens = mixed.vectors(space, view, rows), mixed.tokens(space, view, rows)
            for row, id in enumerate(owners):
                np.testing.assert_array_equal(vectors[row], samples.vector(space, id, view, _version(id)))
                np.testing.assert_array_equal(tokens[row], samples.tokens(space, id, view, _version(id)))
    assert mixed.num_rows("caption") == 0
    assert mixed.num_rows("rgb") == sum(int(id[5:]) % 2 for id in ids)


def test_rows_and_items_lead_to_each_other(mixed: Snapshot) -> None:
    ordinals = np.random.default_rng(0).permutation(mixed.num_items)
    np.testing.assert_array_equal(mixed.items_of("joint", mixed.rows_of("joint", ordinals)), ordinals)
    odd = [ordinal for ordinal in ordinals if int(mixed.item_ids[ordinal][5:]) % 2]
    np.testing.assert_array_equal(mixed.items_of("rgb", mixed.rows_of("rgb", ordinals)), odd)
    assert mixed.rows_of("caption", ordinals).tolist() == []
    assert mixed.rows_of("joint", ordinals[:0]).tolist() == []


def test_ids_and_ordinals_lead_to_each_other(mixed: Snapshot) -> None:
    asked = [IDS[3], IDS[9], "unknown", IDS[36], IDS[9]]
    ordinals = mixed.ordinals_of(asked)
    assert (ordinals >= 0).tolist() == [False, True, False, True, True]
    assert mixed.item_ids.take(ordinals[ordinals >= 0]) == [IDS[9], IDS[36], IDS[9]]
    assert mixed.item_ids[np.int64(2)] == list(mixed.item_ids)[2] == mixed.item_ids[:3][2]
    assert mixed.item_ids[-1] == list(mixed.item_ids)[-1]
    with pytest.raises(IndexError):
        mixed.item_ids[mixed.num_items]
    assert [item.id for item in mixed.items([IDS[9], IDS[3], IDS[1]])] == [IDS[9], IDS[1]]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_search_is_exact_over_generation_and_fresh_rows(mixed: Snapshot, share: float) -> None:
    rng = np.random.default_rng(7)
    queries = rng.standard_normal((6, 8)).astype(np.float32)
    allowed = rng.random(mixed.num_items) < share
    for view in ("joint", "rgb"):
        rows = np.arange(mixed.num_rows(view))
        rows = rows[allowed[mixed.items_of(view, rows)]]
        scores = queries @ mixed.vectors("dino", view, rows).T
        for k in (1, 5, 100):
            found = mixed.search("dino", view, queries, k, allowed)
            best = np.argsort(-scores, axis=1)[:, :k]
            num_found = min(k, len(rows))
            np.testing.assert_array_equal(found.rows[:, :num_found], rows[best])
            assert np.all(found.rows[:, num_found:] == -1)
            assert np.all(np.isneginf(found.scores[:, num_found:]))
            np.testing.assert_allclose(
                found.scores[:, :num_found], np.take_along_axis(scores, best, 1), atol=1e-5
            )


def test_a_snapshot_does_not_change(store: Store, writer: Writer, mixed: Snapshot, samples) -> None:
    query = samples.vector("dino", IDS[9], "joint")[None]
    before = (list(mixed.item_ids), mixed.search("dino", "joint", query, 50))
    writer.remove("photos", IDS[:20])
    samples.commit(writer, IDS[5:12], version=2)
    for version in range(3, 6):  # its generation is deleted meanwhile
        samples.commit(writer, IDS[:2], version)
        writer.publish("photos")
        store.snapshot("photos")
    after = mixed.search("dino", "joint", query, 50)
    assert list(mixed.item_ids) == before[0]
    np.testing.assert_array_equal(after.rows, before[1].rows)
    np.testing.assert_array_equal(after.scores, before[1].scores)
    assert mixed.attributes.num_rows == len(before[0])


def test_the_same_snapshot_serves_until_something_changes(
    store: Store, writer: Writer, mixed: Snapshot
) -> None:
    assert store.snapshot("photos") is mixed
    writer.remove("photos", ["unknown"])
    assert store.snapshot("photos") is mixed
    writer.remove("photos", [IDS[0]])
    assert store.snapshot("photos") is not mixed


def test_many_commits_keep_few_parts(store: Store, writer: Writer, samples) -> None:
    for number in range(20):
        samples.commit(writer, [f"{number}", f"{number // 2} again"], version=number)
        snapshot = store.snapshot("photos")
        assert len(snapshot.parts) <= 9
    assert sorted(snapshot.item_ids) == sorted({*map(str, range(20)), *(f"{n} again" for n in range(10))})
    assert all(samples.found(store, str(number), version=number) for number in range(20))


def test_an_empty_collection_can_be_asked(store: Store, writer: Writer) -> None:
    assert writer
    for _ in range(2):
        snapshot = store.snapshot("photos")
        found = snapshot.search("dino", "joint", np.ones((2, 8), np.float32), 3, np.empty(0, np.bool_))
        assert found.rows.tolist() == [[-1] * 3] * 2
        assert (list(snapshot.item_ids), snapshot.attributes.num_rows, snapshot.num_rows("rgb")) == ([], 0, 0)
        assert snapshot.ordinals_of(["a"]).tolist() == [-1]
        writer.publish("photos")


def test_a_query_that_means_nothing_is_refused(mixed: Snapshot) -> None:
    query = np.ones((1, 8), np.float32)
    everything = np.ones(mixed.num_items, np.bool_)
    for says, space, view, queries, k, allowed in [
        ("no space 'clip'; it has dino, bind", "clip", "joint", query, 1, None),
        ("no view 'depth'; it has joint, rgb, caption", "dino", "depth", query, 1, None),
        ("holds 12-d vectors in bind, got queries of shape", "bind", "joint", query, 1, None),
        ("of shape", "dino", "joint", query[0], 1, None),
        ("not finite", "dino", "joint", query * np.nan, 1, None),
        ("At least 1", "dino", "joint", query, 0, None),
        ("bool of shape", "dino", "joint", query, 1, everything[1:]),
        ("bool of shape", "dino", "joint", query, 1, everything.astype(int)),
    ]:
        with pytest.raises(QueryError, match=says):
            mixed.search(space, view, queries, k, allowed)


@pytest.mark.parametrize("row", [-1, 10_000])
def test_rows_outside_are_refused(mixed: Snapshot, row: int) -> None:
    rows = np.array([0, row])
    for ask in (
        lambda: mixed.vectors("dino", "joint", rows),
        lambda: mixed.tokens("dino", "joint", rows),
        lambda: mixed.regions_of("joint", rows),
        lambda: mixed.items_of("joint", rows),
        lambda: mixed.rows_of("joint", rows),
    ):
        with pytest.raises(IndexError, match=r"has (row|item ordinal)s 0\.\."):
            ask()


def test_an_index_that_ignores_the_filter_is_not_believed(
    mixed: Snapshot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    allowed = np.zeros(mixed.num_items, np.bool_)
    allowed[[1, 7, 30]] = True
    query = np.eye(8, dtype=np.float32)[:1]
    expected = mixed.search("dino", "joint", query, 3, allowed)
    index_type = type(mixed.parts[0].part.views["joint"].indexes["dino"])
    search = index_type.search

    def careless(self: object, queries: np.ndarray, k: int, allowed: object = None) -> Matches:
        del allowed
        return search(self, queries, k)

    monkeypatch.setattr(index_type, "search", careless)
    found = mixed.search("dino", "joint", query, 3, allowed)
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert "ignores the rows" in caplog.text


def test_many_threads_may_ask_while_one_writes(store: Store, writer: Writer, samples) -> None:
    query = samples.vector("dino", "0", "joint")[None]

    def ask(_: int) -> bool:
        snapshot = store.snapshot("photos")
        found = snapshot.search("dino", "joint", query, 10)
        rows = found.rows[found.rows >= 0]
        assert len(snapshot.items_of("joint", rows)) == min(10, snapshot.num_items)
        return snapshot.num_items % 5 == 0

    with ThreadPoolExecutor(4) as pool:
        asked = []
        for start in range(0, 50, 5):
            samples.commit(writer, [str(number) for number in range(start, start + 5)])
            asked.append(pool.map(ask, range(10)))
            if start % 20 == 0:
                writer.publish("photos")
        assert all(all(each) for each in asked)
