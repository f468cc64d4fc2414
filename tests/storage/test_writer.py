"""A commit is durable and findable when it returns, and leaves nothing when it raises."""

import dataclasses
import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from anyseek.errors import ConflictError, InputError, NotFoundError, StorageError
from anyseek.storage import Item, JobError, Rows, Store, Writer

_NO_ROWS = Rows((), (), {}, {})


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_committed_items_are_found_before_any_publishing(store: Store, writer: Writer, samples) -> None:
    assert store.snapshot("photos").num_items == 0
    samples.commit(writer, ["a", "b"])
    samples.commit(writer, ["c"])
    assert all(samples.found(store, id) for id in "abc")
    assert store.collection("photos").num_items == 3
    assert store.snapshot("photos").generation is None


def test_a_replaced_item_loses_all_its_old_rows(store: Store, writer: Writer, samples) -> None:
    items = samples.items(["a", "b"])
    writer.commit("photos", items=items, rows=samples.rows(["a", "b"], ("joint", "rgb")))
    writer.publish("photos")
    samples.commit(writer, ["a"], version=1)
    for _ in range(2):
        snapshot = store.snapshot("photos")
        assert (snapshot.num_rows("joint"), snapshot.num_rows("rgb"), snapshot.num_items) == (2, 1, 2)
        assert samples.found(store, "a", version=1)
        assert not samples.found(store, "a", version=0)
        assert store.catalog.items("photos", ["a"]) == samples.items(["a"], version=1)
        writer.publish("photos")


def test_an_item_without_rows_is_an_item(store: Store, writer: Writer) -> None:
    assert writer.commit("photos", items=[Item("a", attributes={"x": 1})], rows=_NO_ROWS) is None
    for _ in range(2):
        snapshot = store.snapshot("photos")
        assert list(snapshot.item_ids) == ["a"]
        assert snapshot.attributes.to_pylist() == [{"x": 1}]
        assert snapshot.num_rows("joint") == 0
        writer.publish("photos")


def test_nothing_at_all_may_be_committed(store: Store, writer: Writer) -> None:
    assert writer.commit("photos", items=[], rows=_NO_ROWS) is None
    assert store.collection("photos").revision == 0


def test_removed_items_are_gone(store: Store, writer: Writer, samples) -> None:
    samples.commit(writer, ["a", "b", "c"])
    assert writer.remove("photos", ["b", "b", "x"]) == 1
    assert not samples.found(store, "b")
    writer.publish("photos")
    assert writer.remove("photos", ["a"]) == 1
    assert writer.remove("photos", ["a"]) == 0
    assert list(store.snapshot("photos").item_ids) == ["c"]
    samples.commit(writer, ["a"])
    assert samples.found(store, "a")
    assert store.collection("photos").num_items == 2


def test_a_shard_is_committed_once(store: Store, writer: Writer, samples) -> None:
    job = writer.start_job("photos", {"source": "x"})
    arguments = {"items": samples.items(["a"]), "rows": samples.rows(["a"]), "job": job.id, "shard": 0}
    segment = writer.commit("photos", **arguments)
    assert writer.commit("photos", **arguments) == segment
    assert len(store.catalog.segments("photos")) == 1
    assert (store.catalog.job(job.id).num_items, store.collection("photos").revision) == (1, 1)
    arguments |= {"items": samples.items(["b"]), "rows": samples.rows(["b"]), "shard": 1}
    assert writer.commit("photos", **arguments) != segment


def test_an_unfinished_job_is_taken_up_again(writer: Writer, samples) -> None:
    spec = {"source": "x", "views": ["joint"], "size": 1.5}
    first = writer.start_job("photos", spec)
    samples.commit(writer, ["a"], job=first.id, shard=3)
    assert writer.start_job("photos", dict(reversed(spec.items()))).id == first.id
    assert writer.start_job("photos", spec | {"source": "y"}).id != first.id
    writer.finish_job(first.id, "failed")
    again = writer.start_job("photos", spec)
    assert (again.id, again.state) == (first.id, "running")
    assert writer.done_shards(first.id) == {3}
    writer.finish_job(first.id, "done")
    assert writer.start_job("photos", spec).id != first.id


def test_a_job_belongs_to_its_collection(writer: Writer, samples) -> None:
    samples.create(writer, "birds")
    job = writer.start_job("birds", {})
    with pytest.raises(InputError, match="another collection"):
        samples.commit(writer, ["a"], job=job.id, shard=0)
    with pytest.raises(InputError, match="belong to a job"):
        samples.commit(writer, ["a"], shard=0)
    with pytest.raises(InputError, match="belong to a job"):
        samples.commit(writer, ["a"], errors=[JobError("p", "rgb", "c", "m")])
    with pytest.raises(NotFoundError):
        samples.commit(writer, ["a"], job="unknown", shard=0)


def test_the_same_collection_may_be_created_again(store: Store, writer: Writer, samples) -> None:
    samples.commit(writer, ["a"])
    assert samples.create(writer).num_items == 1
    with pytest.raises(ConflictError, match="do not mix"):
        samples.create(writer, fingerprint="f2")
    with pytest.raises(ConflictError, match="joint, rgb, caption"):
        writer.create_collection(
            "photos", model="tiny", fingerprint="f1", spaces=samples.spaces, views=["joint"]
        )
    assert store.collection("photos").fingerprint == "f1"


def test_vectors_of_two_galleries_do_not_mix(store: Store, writer: Writer, samples) -> None:
    given = {"model": "m", "fingerprint": "f", "spaces": samples.spaces, "views": ["joint"]}
    assert writer.create_collection("p", **given).gallery == "predicted"
    for name, first, other in (("p", "predicted", "teacher x"), ("t", "teacher x", "teacher y")):
        assert writer.create_collection(name, **given, gallery=first).gallery == first
        with pytest.raises(ConflictError, match=f"gallery '{first}', not of '{other}'") as caught:
            writer.create_collection(name, **given, gallery=other)
        assert caught.value.code == "collection.gallery"
        assert store.collection(name).gallery == first


def test_a_deleted_collection_leaves_no_file_and_no_row(
    store: Store, writer: Writer, samples, photos
) -> None:
    job = writer.start_job("photos", {})
    samples.commit(writer, ["a", "b"], job=job.id, shard=0)
    writer.publish("photos")
    writer.remove("photos", ["b"])
    before = store.snapshot("photos")
    writer.delete_collection("photos")
    assert not photos.exists()
    assert (store.collections(), store.catalog.jobs()) == ([], [])
    assert before.search("dino", "joint", samples.vector("dino", "a", "joint")[None], 1).scores[0, 0] > 0.99
    samples.create(writer)
    assert store.snapshot("photos").num_items == 0


def _with(rows: Rows, **changes: object) -> Rows:
    return dataclasses.replace(rows, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda r: _with(r, item_ids=["a", "stranger"]), "without their items: 'stranger'"),
        (lambda r: _with(r, views=["joint", "depth"]), "no view 'depth'.*joint, rgb, caption"),
        (lambda r: _with(r, views=["joint"]), "1 views"),
        (lambda r: _with(r, regions=["r"]), "1 regions"),
        (lambda r: _with(r, item_ids=["a", "a"]), "Two rows for item 'a'"),
        (lambda r: _with(r, vectors={"dino": r.vectors["dino"]}), "bind, dino; got dino"),
        (lambda r: _with(r, tokens={}), "got none"),
        (lambda r: _with(r, vectors=dict(zip(r.vectors, reversed(r.vectors.values()), strict=True))), "8-d"),
        (lambda r: _with(r, vectors={k: v * 2 for k, v in r.vectors.items()}), "length 1"),
        (lambda r: _with(r, vectors={k: v * np.nan for k, v in r.vectors.items()}), "length 1"),
        (lambda r: _with(r, tokens={k: v + 64 for k, v in r.tokens.items()}), r"0\.\.63"),
        (lambda r: _with(r, tokens={k: v.astype(int) - 64 for k, v in r.tokens.items()}), r"0\.\.63"),
        (lambda r: _with(r, tokens={k: v[:, :2] for k, v in r.tokens.items()}), "4 token ids"),
        (lambda r: _with(r, tokens={k: v * 1.0 for k, v in r.tokens.items()}), "float64"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    store: Store, writer: Writer, samples, photos: Path, spoil: Callable[[Rows], Rows], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        writer.commit("photos", items=samples.items(["a", "b"]), rows=spoil(samples.rows(["a", "b"])))
    assert store.collection("photos").revision == 0
    assert not photos.exists() or not _files(photos)


def test_an_item_twice_in_one_commit_is_refused(writer: Writer, samples) -> None:
    with pytest.raises(InputError, match="'a' comes twice"):
        writer.commit("photos", items=samples.items(["a", "a"]), rows=samples.rows(["a"]))


def test_regions_have_rows_of_their_own(store: Store, writer: Writer, samples) -> None:
    rows = samples.rows_of([("a", "joint")] * 3)
    rows = _with(rows, regions=[None, "box 1", "box 2"])
    writer.commit("photos", items=samples.items(["a"]), rows=rows)
    for _ in range(2):
        snapshot = store.snapshot("photos")
        assert snapshot.regions_of("joint", np.array([2, 0, 1])) == ["box 2", None, "box 1"]
        assert snapshot.rows_of("joint", np.array([0])).tolist() == [0, 1, 2]
        writer.publish("photos")


class _FullDisk:
    """Every write to disk fails after some that do not."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.fsync = os.fsync

    def __call__(self, descriptor: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.fsync(descriptor)


@pytest.mark.parametrize(
    ("work", "after"),
    [("commit", 0), ("commit", 1), ("publish", 0), ("publish", 5), ("publish", 7), ("publish", 8)],
)
def test_a_full_disk_stops_the_writer_and_not_the_search(
    store: Store,
    writer: Writer,
    samples,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    work: str,
    after: int,
) -> None:
    samples.commit(writer, ["a"])
    before = _files(photos)
    monkeypatch.setattr(os, "fsync", _FullDisk(after))
    with pytest.raises(StorageError, match="No space") as caught:
        samples.commit(writer, ["b"]) if work == "commit" else writer.publish("photos")
    monkeypatch.undo()
    assert caught.value.code == "storage.full"
    assert _files(photos) == before
    assert list(store.snapshot("photos").item_ids) == ["a"]
    samples.commit(writer, ["b"])
    assert writer.publish("photos").num_items == 2
    assert samples.found(store, "b")


@pytest.mark.parametrize("limit", [0, 1000, 16_000])
def test_files_that_may_not_grow_stop_the_writer_and_not_the_search(
    store: Store, writer: Writer, samples, photos: Path, limit: int
) -> None:
    ids = [f"{number}" for number in range(200)]
    samples.commit(writer, ids)
    before = _files(photos)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        with pytest.raises(StorageError):
            samples.commit(writer, ids, version=1)
        with pytest.raises(StorageError):
            writer.publish("photos")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert _files(photos) == before
    assert samples.found(store, "7")
    samples.commit(writer, ids, version=1)
    writer.publish("photos")
    assert samples.found(store, "7", version=1)


def test_a_failing_transaction_leaves_no_file(
    store: Store, writer: Writer, samples, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("cable pulled")

    samples.commit(writer, ["a"])
    before = _files(photos)
    monkeypatch.setattr("anyseek.storage.changes.add_items", fail)
    with pytest.raises(RuntimeError, match="cable"):
        samples.commit(writer, ["b"])
    monkeypatch.setattr("anyseek.storage.changes.switch", fail)
    with pytest.raises(RuntimeError, match="cable"):
        writer.publish("photos")
    assert _files(photos) == before
    assert list(store.snapshot("photos").item_ids) == ["a"]
