"""A generation is whole or not there, and damage to any file never stops the search."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from anyseek.storage import Store, Writer

IDS = [f"{number}" for number in range(20)]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def published(writer: Writer, samples, photos: Path) -> Path:
    """The newest of two generations of the same items; the older has half of them."""
    samples.commit(writer, IDS[:10])
    writer.publish("photos")
    samples.commit(writer, IDS[10:])
    return photos / "generations" / writer.publish("photos").name


def test_its_manifest_covers_every_file(published: Path) -> None:
    manifest = json.loads((published / "manifest.json").read_text())
    assert sorted([*manifest["files"], "manifest.json"]) == _names(published)
    assert _names(published) == [
        "attributes.arrow", "bind.joint.faiss", "bind.joint.tokens.npy", "dino.joint.faiss",
        "dino.joint.tokens.npy", "manifest.json", "rows.arrow",
    ]  # fmt: skip
    assert manifest["views"] == {"joint": 20, "rgb": 0, "caption": 0}
    assert (manifest["num_items"], manifest["fingerprint"], len(manifest["segments"])) == (20, "f1", 2)


def test_publishing_without_change_changes_nothing(store: Store, writer: Writer, published: Path) -> None:
    revision = store.collection("photos").revision
    assert writer.publish("photos").name == published.name == "g_000002"
    assert store.collection("photos").revision == revision


def test_the_last_two_are_kept(store: Store, writer: Writer, samples, published: Path) -> None:
    for version in range(1, 4):
        samples.commit(writer, IDS[:3], version)
        writer.publish("photos")
        names = [generation.name for generation in store.catalog.generations("photos")]
        assert sorted(names) == _names(published.parent)
        assert len(names) == 2
    assert names == ["g_000005", "g_000004"]


def test_segments_without_live_rows_are_deleted(store: Store, writer: Writer, samples, photos: Path) -> None:
    for version in range(6):
        samples.commit(writer, IDS, version)
    writer.publish("photos")
    assert len(_names(photos / "segments")) == len(store.catalog.segments("photos")) == 1
    samples.commit(writer, IDS[:1], 7)
    writer.publish("photos")
    assert len(_names(photos / "segments")) == 2
    assert samples.found(store, "0", 7)
    assert samples.found(store, "1", 5)


_FILES = [
    "attributes.arrow", "rows.arrow", "manifest.json", "dino.joint.faiss", "bind.joint.faiss",
    "dino.joint.tokens.npy",
]  # fmt: skip


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "delete"])
def test_a_damaged_file_never_stops_the_search(
    store: Store,
    writer: Writer,
    samples,
    published: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    harm: str,
) -> None:
    path = published / name
    if harm == "flip":
        _flip(path)
    elif harm == "delete":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if harm == "truncate" else b"")
    with caplog.at_level(logging.WARNING, "anyseek"):
        snapshot = store.snapshot("photos")
    assert snapshot.generation == "g_000001"
    assert all(samples.found(store, id) for id in IDS)
    assert name in caplog.text
    health = store.health()
    assert (health.state, health.problems[0].kind, health.problems[0].name) == (
        "degraded",
        "generation",
        "g_000002",
    )
    assert health.problems[0].num_items == 0
    writer.publish("photos")
    assert store.snapshot("photos").generation == "g_000003"
    assert all(samples.found(store, id) for id in IDS)
    assert store.health().state == "ok"
    assert _names(published.parent) == ["g_000003"]


def test_without_any_good_generation_segments_serve(
    store: Store, writer: Writer, samples, published: Path
) -> None:
    writer.remove("photos", ["3", "13"])
    for generation in published.parent.iterdir():
        _flip(generation / "manifest.json")
    snapshot = store.snapshot("photos")
    assert snapshot.generation is None
    assert sorted(snapshot.item_ids) == sorted(set(IDS) - {"3", "13"})
    assert all(samples.found(store, id) for id in snapshot.item_ids)
    assert len(store.health().problems) == 2
    # A reader of fresh rows alone has no generation behind it to which removals could be missing.
    samples.commit(writer, ["3"], 1)
    assert samples.found(store, "3", 1)


def test_a_reader_behind_by_two_generations_misses_no_removal(store: Store, writer: Writer, samples) -> None:
    with Store.open(store.path) as reader:
        samples.commit(writer, IDS)
        assert reader.snapshot("photos").num_items == 20
        for id in IDS[:4]:
            writer.remove("photos", [id])
            writer.publish("photos")
        assert sorted(reader.snapshot("photos").item_ids) == sorted(IDS[4:])


def test_a_reader_of_damaged_generations_misses_no_removal(
    store: Store, writer: Writer, samples, photos: Path
) -> None:
    with Store.open(store.path) as reader:
        samples.commit(writer, IDS)
        assert reader.snapshot("photos").generation is None
        for id in IDS[:4]:
            writer.remove("photos", [id])
            writer.publish("photos")
        for generation in (photos / "generations").iterdir():
            _flip(generation / "rows.arrow")
        snapshot = reader.snapshot("photos")
        assert (snapshot.generation, sorted(snapshot.item_ids)) == (None, sorted(IDS[4:]))


def test_a_damaged_segment_is_left_out_and_named(
    store: Store, writer: Writer, samples, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples.commit(writer, IDS[:10])
    samples.commit(writer, IDS[10:])
    bad = store.catalog.segments("photos")[0].name
    _flip(photos / "segments" / f"{bad}.parquet")
    assert not samples.found(store, "3")
    assert samples.found(store, "13")
    assert store.snapshot("photos").num_items == 20  # its attributes are known all the same
    assert bad in caplog.text
    for _ in range(2):
        problem = store.health().problems[0]
        assert (problem.kind, problem.name, problem.num_items) == ("segment", bad, 10)
        assert writer.publish("photos").num_rows == 10
        assert samples.found(store, "13")
    with Store.open(store.path) as other:  # the writer wrote down what it found
        assert [problem.name for problem in other.health().problems] == [bad]
    # Only its items are to be indexed again; then all is well.
    assert [id for id, _ in store.catalog.signatures("photos")] == sorted(IDS[10:])
    samples.commit(writer, IDS[:10])
    writer.publish("photos")
    assert all(samples.found(store, id) for id in IDS)
    assert store.health().state == "ok"


def test_a_segment_that_came_back_counts_again(store: Store, writer: Writer, samples, photos: Path) -> None:
    samples.commit(writer, IDS)
    path = next((photos / "segments").iterdir())
    content = path.read_bytes()
    path.unlink()
    assert writer.publish("photos").num_rows == 0
    path.write_bytes(content)
    assert writer.publish("photos").num_rows == 20
    assert all(samples.found(store, id) for id in IDS)
    assert store.health().state == "ok"


def test_a_published_segment_may_break_unnoticed_by_readers(store: Store, samples, published: Path) -> None:
    for segment in (published.parent.parent / "segments").iterdir():
        segment.unlink()
    assert all(samples.found(store, id) for id in IDS)
    assert store.health().state == "ok"


def test_tokens_that_are_pickled_are_not_loaded(store: Store, writer: Writer, published: Path) -> None:
    """Even where every checksum agrees: a folder made by someone else."""
    path = published / "dino.joint.tokens.npy"
    np.save(path, np.array([{}] * 20, object), allow_pickle=True)
    manifest_path = published / "manifest.json"
    manifest = json.loads(manifest_path.read_text())
    manifest["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest_path.write_text(json.dumps(manifest))
    sha256 = hashlib.sha256(manifest_path.read_bytes()).hexdigest()
    with writer._database.write() as connection:
        connection.exec_driver_sql(f"UPDATE generations SET sha256 = '{sha256}' WHERE number = 2")
    assert store.snapshot("photos").generation == "g_000001"
    assert "npy" in store.health().problems[0].message or "pickle" in store.health().problems[0].message


def test_leftovers_of_a_crash_are_passed_over(store: Store, photos: Path) -> None:
    with Store.open(store.path) as other:
        leftovers = [
            photos / "segments" / ".tmp-1-x.parquet",
            photos / "segments" / "unknown.parquet",
            photos / "generations" / ".tmp-1-g_000001" / "manifest.json",
            photos / "generations" / "g_000001" / "manifest.json",
            photos.parent / "unknown" / "segments" / "s.parquet",
        ]
        for path in leftovers:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half")
        assert other.snapshot("photos").num_items == 0
        assert other.health().state == "ok"
    assert all(path.exists() for path in leftovers)


def test_the_next_writer_deletes_leftovers(store: Store, samples) -> None:
    with store.writer() as writer:
        samples.create(writer)
        samples.commit(writer, IDS)
        writer.publish("photos")
    photos = store.path / "collections" / store.collection("photos").id
    kept = {path for path in photos.rglob("*") if path.is_file()}
    for name in (
        "segments/.tmp-1",
        "segments/x.parquet",
        "generations/.tmp-2/a",
        "generations/g_000002/a",
        "../y/z",
    ):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"half")
    with store.writer():
        assert {path for path in photos.parent.rglob("*") if path.is_file()} == kept
        assert all(samples.found(store, id) for id in IDS)
