import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import ConflictError, InputError, ModelError, StorageError, WriterBusyError
from anyseek.indexer import FolderSource, Indexer, IndexProgress, IndexReport, NewItem, stop_on_signals
from anyseek.storage import Store, Writer

Pictures = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "library.anyseek", create=True) as opened:
        yield opened


@pytest.fixture
def indexer(store: Store, model: Any) -> Indexer:
    return Indexer(store, model, batch_size=2, items_per_segment=4)


def ids(store: Store, collection: str = "photos") -> list[str]:
    return sorted(store.snapshot(collection).item_ids)


def rows(store: Store, collection: str = "photos") -> dict[tuple[str, str], bytes]:
    """Everything a search sees, by item and view."""
    snapshot = store.snapshot(collection)
    found: dict[tuple[str, str], bytes] = {}
    for view in snapshot.collection.views:
        numbers = np.arange(snapshot.num_rows(view))
        for i, ordinal in enumerate(snapshot.items_of(view, numbers)):
            key = (snapshot.item_ids[int(ordinal)], view)
            assert key not in found
            found[key] = b"".join(
                array[i].tobytes()
                for space in snapshot.collection.spaces
                for array in (
                    snapshot.vectors(space.name, view, numbers),
                    snapshot.tokens(space.name, view, numbers),
                )
            )
    return found


def codes(report: IndexReport) -> list[str]:
    return [error.code for error in report.errors]


def stop_after(num_shards: int) -> Callable[[], bool]:
    calls = iter(range(1, 1_000_000))
    return lambda: next(calls) >= num_shards


def test_a_folder_becomes_a_collection(store: Store, indexer: Indexer, pictures: Pictures) -> None:
    root = pictures(10)
    (root / "0003.caption.txt").write_text("a harbour")
    (root / "0003.json").write_text('{"year": 2024}')
    report = indexer.index("photos", FolderSource(root))
    assert (report.state, report.total, report.done, report.failed, report.skipped) == ("done", 10, 10, 0, 0)
    assert ids(store) == [f"{i:04d}" for i in range(10)]
    assert report.generation == store.snapshot("photos").generation
    (item,) = store.catalog.items("photos", ["0003"])
    assert {asset.modality: asset.path for asset in item.assets} == {
        "rgb": str(root / "0003.png"),
        "caption": str(root / "0003.caption.txt"),
    }
    assert item.attributes["year"] == 2024
    assert item.source == str(root)
    assert set(report.seconds) == {"scan", "read", "embed", "predict", "store", "publish"}
    assert report.to_json()["errors"] == 0


def test_rows_are_what_the_model_gives(
    store: Store, indexer: Indexer, pictures: Pictures, model: Any
) -> None:
    root = pictures(3)
    indexer.index("photos", FolderSource(root))
    snapshot = store.snapshot("photos")
    inputs = {"rgb": model.embedder.read("rgb", root / "0001.png")}
    for space, embedded in model.embedder.embed([inputs]).items():
        matches = snapshot.search(space, "joint", embedded.vectors, 1)
        assert matches.scores[0, 0] > 0.999
        assert snapshot.item_ids[int(snapshot.items_of("joint", matches.rows[0])[0])] == "0001"


def test_unchanged_items_are_skipped_and_changed_ones_replaced(
    store: Store, indexer: Indexer, pictures: Pictures, picture: Callable[..., Path], model: Any
) -> None:
    root = pictures(6)
    indexer.index("photos", FolderSource(root))
    before, generation = rows(store), store.snapshot("photos").generation
    again = indexer.index("photos", FolderSource(root))
    assert (again.done, again.skipped, again.generation) == (0, 6, generation)
    picture(root / "0002.png", seed=99, size=(13, 9))
    (root / "new").mkdir()
    picture(root / "new/1.png", seed=100)
    model.embedder.batches.clear()
    report = indexer.index("photos", FolderSource(root))
    assert (report.done, report.skipped) == (2, 5)
    assert sum(model.embedder.batches) == 2
    after = rows(store)
    assert after.keys() == {*before, ("new/1", "joint")}
    assert {key[0] for key in before if after[key] != before[key]} == {"0002"}


def test_few_changes_make_few_segments(store: Store, indexer: Indexer, pictures: Pictures) -> None:
    root = pictures(40)
    indexer.index("photos", FolderSource(root))
    num_segments = len(store.catalog.segments("photos"))
    for i in (1, 11, 21, 31):
        (root / f"{i:04d}.caption.txt").write_text("new")
    indexer.index("photos", FolderSource(root), publish=False)
    assert len(store.catalog.segments("photos")) == num_segments + 1


def test_removed_files_are_removed_only_when_asked(
    store: Store, indexer: Indexer, pictures: Pictures
) -> None:
    root = pictures(5)
    other = pictures(2, "other")
    indexer.index("photos", FolderSource(root))
    indexer.index("photos", FolderSource(other, prefix="other"))
    indexer.add("photos", [NewItem("mine", {"caption": "x"})])
    (root / "0001.png").unlink()
    assert indexer.index("photos", FolderSource(root)).removed == 0
    assert "0001" in ids(store)
    assert indexer.index("photos", FolderSource(root), prune=True).removed == 1
    assert ids(store) == ["0000", "0002", "0003", "0004", "mine", "other/0000", "other/0001"]


def test_an_empty_folder_never_prunes_everything(store: Store, indexer: Indexer, pictures: Pictures) -> None:
    root = pictures(3)
    indexer.index("photos", FolderSource(root))
    for path in root.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="mounted"):
        indexer.index("photos", FolderSource(root), prune=True)
    assert len(ids(store)) == 3


def test_items_below_a_folder_that_cannot_be_listed_are_not_pruned(
    store: Store,
    indexer: Indexer,
    pictures: Pictures,
    picture: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = pictures(2)
    picture(root / "locked/a.png", seed=5)
    indexer.index("photos", FolderSource(root))
    (root / "0000.png").unlink()
    real = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = indexer.index("photos", FolderSource(root), prune=True)
    assert report.removed == 1
    assert ids(store) == ["0001", "locked/a"]
    assert codes(report) == ["source.unreadable_folder"]


def test_the_same_id_from_another_folder_is_listed_and_not_overwritten(
    store: Store, indexer: Indexer, pictures: Pictures
) -> None:
    first, second = pictures(3), pictures(4, "second", skip=[0])
    indexer.index("photos", FolderSource(first))
    before = rows(store)
    report = indexer.index("photos", FolderSource(second))
    assert (report.done, report.failed) == (1, 2)
    assert set(codes(report)) == {"item.taken"}
    (error, _) = report.errors
    assert "prefix" in error.message
    assert str(first) in error.message
    assert {key: value for key, value in rows(store).items() if key in before} == before
    assert indexer.index("photos", FolderSource(second, prefix="second")).done == 3


def test_bad_files_are_listed_and_the_job_goes_on(indexer: Indexer, pictures: Pictures) -> None:
    root = pictures(9, skip=[2, 5])
    (root / "0002.png").write_text("text")
    (root / "0005.png").write_bytes(b"")
    (root / "0007.caption.txt").write_bytes(b"\xff\xff")
    report = indexer.index("photos", FolderSource(root))
    assert (report.done, report.failed) == (7, 2)
    assert sorted(Path(error.path).name for error in report.errors) == [
        "0002.png",
        "0005.png",
        "0007.caption.txt",
    ]
    assert len(report.errors) == 3
    again = indexer.index("photos", FolderSource(root))
    assert (again.done, again.failed, again.skipped) == (0, 2, 7)
    assert len(list(again.errors)) == 3  # still broken: still told
    assert again.generation == report.generation


def test_a_part_that_can_be_read_again_is_taken_up(
    store: Store, indexer: Indexer, pictures: Pictures, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pictures(2)
    (root / "0000.caption.txt").write_text("a harbour")
    real = model.embedder.read

    def refuse(modality: str, content: Any) -> Any:
        if modality == "caption":
            raise PermissionError(13, "Permission denied")
        return real(modality, content)

    monkeypatch.setattr(model.embedder, "read", refuse)
    assert codes(indexer.index("photos", FolderSource(root))) == ["input.unreadable"]
    monkeypatch.setattr(model.embedder, "read", real)
    report = indexer.index("photos", FolderSource(root))
    assert (report.done, report.skipped, codes(report)) == (1, 1, [])
    (item,) = store.catalog.items("photos", ["0000"])
    assert {asset.modality for asset in item.assets} == {"rgb", "caption"}


def test_an_attribute_of_another_type_costs_only_itself(
    store: Store, indexer: Indexer, pictures: Pictures
) -> None:
    root = pictures(6)
    (root / "0000.json").write_text('{"year": 2024}')
    (root / "0005.json").write_text('{"year": "2024", "ok": true}')
    report = indexer.index("photos", FolderSource(root))
    assert report.done == 6
    assert codes(report) == ["attributes.type"]
    (item,) = store.catalog.items("photos", ["0005"])
    assert "year" not in item.attributes
    assert item.attributes["ok"] is True


@pytest.mark.parametrize("num_shards", [1, 2, 3, 4])
def test_a_stopped_job_goes_on_with_the_same_rows(
    store: Store,
    tmp_path: Path,
    make_model: Callable[..., Any],
    pictures: Pictures,
    num_shards: int,
) -> None:
    root = pictures(17)
    (root / "0006.png").write_text("broken")
    options: dict[str, Any] = {"batch_size": 3, "items_per_segment": 4, "views": ("joint", "rgb")}
    with Store.open(tmp_path / "reference.anyseek", create=True) as reference:
        model = make_model(batch_sensitive=True)
        Indexer(reference, model, **options).index("photos", FolderSource(root))
        expected = rows(reference)
    model = make_model(batch_sensitive=True)
    indexer = Indexer(store, model, **options)
    first = indexer.index("photos", FolderSource(root), should_stop=stop_after(num_shards))
    assert first.state == "stopped"
    assert first.done + first.failed == 4 * num_shards
    assert len(ids(store)) == first.done
    model.embedder.batches.clear()
    second = indexer.index("photos", FolderSource(root))
    assert second.job_id == first.job_id
    assert second.skipped == 4 * num_shards
    assert first.done + second.done == 16
    assert rows(store) == expected
    assert [Path(error.path).name for error in second.errors] == ["0006.png"]
    assert sum(model.embedder.batches) <= 17 - 4 * num_shards


def test_a_job_stopped_among_changes_goes_on_with_the_same_rows(
    store: Store, tmp_path: Path, make_model: Callable[..., Any], pictures: Pictures
) -> None:
    root = pictures(30)
    options: dict[str, Any] = {"batch_size": 3, "items_per_segment": 4}
    with Store.open(tmp_path / "reference.anyseek", create=True) as reference:
        ways = [Indexer(each, make_model(batch_sensitive=True), **options) for each in (store, reference)]
        for way in ways:
            way.index("photos", FolderSource(root))
        for i in range(0, 30, 3):
            (root / f"{i:04d}.caption.txt").write_text(f"picture {i}")
        first = ways[0].index("photos", FolderSource(root), should_stop=stop_after(1))
        second = ways[0].index("photos", FolderSource(root))
        whole = ways[1].index("photos", FolderSource(root))
        assert (first.done, second.done, whole.done) == (4, 6, 10)
        assert rows(store) == rows(reference)


def test_a_folder_that_changed_since_the_interruption_loses_nothing(
    store: Store, indexer: Indexer, pictures: Pictures, picture: Callable[..., Path]
) -> None:
    root = pictures(12, skip=[0])
    first = indexer.index("photos", FolderSource(root), should_stop=stop_after(2))
    picture(root / "0000.png", seed=77)  # moves every position
    second = indexer.index("photos", FolderSource(root))
    assert second.job_id != first.job_id
    assert (second.done, second.skipped) == (4, 8)
    assert len(ids(store)) == 12
    states = {job.id: job.state for job in store.catalog.jobs("photos")}
    assert states == {first.job_id: "cancelled", second.job_id: "done"}


def test_a_folder_that_changes_and_changes_back_loses_nothing(
    store: Store, indexer: Indexer, pictures: Pictures, tmp_path: Path
) -> None:
    root = pictures(12)
    indexer.index("photos", FolderSource(root), should_stop=stop_after(2))
    moved = (root / "0001.png").rename(tmp_path / "away.png")
    indexer.index("photos", FolderSource(root), should_stop=stop_after(1), prune=True)
    moved.rename(root / "0001.png")
    indexer.index("photos", FolderSource(root))
    assert len(ids(store)) == 12


def test_other_settings_close_the_interrupted_job(store: Store, model: Any, pictures: Pictures) -> None:
    source = FolderSource(pictures(12))
    first = Indexer(store, model, items_per_segment=4).index("photos", source, should_stop=stop_after(1))
    second = Indexer(store, model, items_per_segment=6).index("photos", source)
    assert (second.done, second.skipped) == (8, 4)
    assert {job.id: job.state for job in store.catalog.jobs("photos")} == {
        first.job_id: "cancelled",
        second.job_id: "done",
    }


def test_progress_counts_what_is_committed(store: Store, indexer: Indexer, pictures: Pictures) -> None:
    root = pictures(10)
    (root / "0001.png").write_text("broken")
    told: list[IndexProgress] = []

    def watch(progress: IndexProgress) -> None:
        told.append(progress)
        if progress.done:
            assert len(store.snapshot("photos").item_ids) >= progress.done

    indexer.index("photos", FolderSource(root), progress=watch)
    assert told[0].stage == "scan"
    assert told[-1].stage == "publish"
    assert (told[-1].done, told[-1].failed, told[-1].total, told[-1].pending) == (9, 1, 10, 0)
    handled = [progress.done + progress.failed + progress.skipped + progress.pending for progress in told]
    assert handled == sorted(handled)
    assert told[-1].rate > 0
    assert told[-1].eta_s == 0
    assert len({progress.job_id for progress in told}) == 1


def test_views_follow_the_collection(store: Store, model: Any, pictures: Pictures) -> None:
    root = pictures(3)
    (root / "0001.caption.txt").write_text("x")
    Indexer(store, model, views=["joint", "caption"]).index("photos", FolderSource(root))
    snapshot = store.snapshot("photos")
    assert (snapshot.num_rows("joint"), snapshot.num_rows("caption")) == (3, 1)
    (root / "0002.caption.txt").write_text("y")
    Indexer(store, model).index("photos", FolderSource(root))
    assert store.snapshot("photos").num_rows("caption") == 2
    with pytest.raises(ConflictError, match="views"):
        Indexer(store, model, views=["rgb"]).index("photos", FolderSource(root))
    with pytest.raises(InputError, match="depth"):
        Indexer(store, model, views=["depth"])


def test_another_model_is_refused(store: Store, make_model: Callable[..., Any], pictures: Pictures) -> None:
    source = FolderSource(pictures(1))
    Indexer(store, make_model()).index("photos", source)
    other = make_model()
    other.fingerprint = "another"
    with pytest.raises(ConflictError):
        Indexer(store, other).index("photos", source)


def test_a_full_disk_stops_the_job_and_loses_nothing(
    store: Store, indexer: Indexer, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, real, num_commits = pictures(12), Writer.commit, 0

    def commit(self: Writer, *arguments: Any, **options: Any) -> Any:
        nonlocal num_commits
        num_commits += 1
        if num_commits == 4:  # the first is the scan's own entry
            raise StorageError("No space left on device.")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Writer, "commit", commit)
    with pytest.raises(StorageError, match="No space left"):
        indexer.index("photos", FolderSource(root))
    assert len(ids(store)) == 8
    assert [job.state for job in store.catalog.jobs("photos")] == ["failed"]
    report = indexer.index("photos", FolderSource(root))
    assert (report.done, report.skipped) == (4, 8)
    assert len(ids(store)) == 12


def test_a_broken_model_stops_the_job(store: Store, model: Any, pictures: Pictures) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("device lost")

    model.embedder.embed = fail
    with pytest.raises(ModelError, match="device lost"):
        Indexer(store, model, batch_size=8).index("photos", FolderSource(pictures(70)))
    assert ids(store) == []


def test_an_item_that_the_model_fails_on_is_listed(store: Store, model: Any, pictures: Pictures) -> None:
    root = pictures(8)
    bad = model.embedder.read("rgb", root / "0005.png")
    real = model.embedder.embed

    def embed(items: Any, **options: Any) -> Any:
        if any(np.array_equal(item["rgb"], bad) for item in items):
            raise RuntimeError("numerical trouble")
        return real(items, **options)

    model.embedder.embed = embed
    report = Indexer(store, model, batch_size=8).index("photos", FolderSource(root))
    assert (report.done, report.failed) == (7, 1)
    (error,) = report.errors
    assert (Path(error.path).name, error.code) == ("0005.png", "input.unexpected")
    assert "numerical trouble" in error.message


def test_a_file_that_vanishes_meanwhile_is_listed(store: Store, model: Any, pictures: Pictures) -> None:
    root = pictures(40)

    def watch(_: IndexProgress) -> None:
        (root / "0039.png").unlink(missing_ok=True)

    indexer = Indexer(store, model, batch_size=2, items_per_segment=4)
    report = indexer.index("photos", FolderSource(root), progress=watch)
    assert report.done == 39
    assert codes(report) in (["input.unreadable"], [])  # [] where the scan was first to miss it


def test_the_store_inside_the_folder_is_not_indexed(model: Any, pictures: Pictures) -> None:
    root = pictures(2)
    with Store.open(root / "index.anyseek", create=True) as store:
        Indexer(store, model).index("photos", FolderSource(root))
        assert Indexer(store, model).index("photos", FolderSource(root)).total == 2


def test_names_that_are_not_utf8_are_indexed_and_served(
    store: Store, indexer: Indexer, pictures: Pictures
) -> None:
    root = pictures(1)
    content = (root / "0000.png").read_bytes()
    (root / "0000.png").rename(root / "caf\udce9.png")
    assert indexer.index("photos", FolderSource(root)).done == 1
    (item,) = store.catalog.items("photos", ["caf\\xe9"])
    assert item.assets[0].sha256 is not None
    assert store.assets.read(item.assets[0].sha256) == content
    assert indexer.index("photos", FolderSource(root)).skipped == 1


def test_added_items_are_found_at_once(store: Store, indexer: Indexer, pictures: Pictures) -> None:
    content = (pictures(1) / "0000.png").read_bytes()
    new = [NewItem("a", {"rgb": content}, {"n": 1}), NewItem("b", {"rgb": b"broken", "caption": "a ball"})]
    report = indexer.add("photos", new)
    assert (report.ids, report.failed) == (("a", "b"), ())
    assert [error.modality for error in report.errors] == ["rgb"]
    assert ids(store) == ["a", "b"]
    again = indexer.add("photos", [NewItem("a", {"caption": "replaced"}), NewItem("c", {"rgb": b"no"})])
    assert (again.ids, again.failed) == (("a",), ("c",))
    (item,) = store.catalog.items("photos", ["a"])
    assert [asset.value for asset in item.assets] == ["replaced"]
    assert "n" not in item.attributes
    assert indexer.remove("photos", ["a", "zzz"]) == 1
    assert ids(store) == ["b"]


def test_added_items_do_not_replace_those_of_a_folder(indexer: Indexer, pictures: Pictures) -> None:
    indexer.index("photos", FolderSource(pictures(1)))
    with pytest.raises(ConflictError, match="0000"):
        indexer.add("photos", [NewItem("0000", {"caption": "x"})])
    indexer.add("photos", [NewItem("mine", {"caption": "x"})])


@pytest.mark.parametrize("id_", ["", "  ", "a\nb", "\ud800", "x" * 1025])
def test_ids_that_cannot_be_are_refused(indexer: Indexer, id_: str) -> None:
    with pytest.raises(InputError, match="id"):
        indexer.add("photos", [NewItem(id_, {"caption": "x"})])


def test_an_id_given_twice_is_refused(indexer: Indexer) -> None:
    with pytest.raises(InputError, match="twice"):
        indexer.add("photos", [NewItem("a", {"caption": "x"}), NewItem("a", {"caption": "y"})])


def test_items_are_added_while_a_job_runs(store: Store, model: Any, pictures: Pictures) -> None:
    root, adder = pictures(8), Indexer(store, model)

    def watch(progress: IndexProgress) -> None:
        if progress.done == 4 and progress.pending == 0:
            thread = threading.Thread(target=adder.add, args=("photos", [NewItem("new", {"caption": "x"})]))
            thread.start()
            thread.join()

    Indexer(store, model, items_per_segment=4).index("photos", FolderSource(root), progress=watch)
    assert "new" in ids(store)
    assert len(ids(store)) == 9


def test_another_library_handle_is_told_who_writes(
    store: Store, indexer: Indexer, pictures: Pictures
) -> None:
    def watch(_: IndexProgress) -> None:
        with Store.open(store.path) as other, pytest.raises(WriterBusyError, match=str(os.getpid())):
            other.writer()

    indexer.index("photos", FolderSource(pictures(1)), progress=watch)
    store.writer().close()  # given back


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_shard(indexer: Indexer, pictures: Pictures, number: signal.Signals) -> None:
    previous, said = signal.getsignal(number), list[str]()

    def watch(progress: IndexProgress) -> None:
        if progress.pending == 2 and not said:
            os.kill(os.getpid(), number)

    source = FolderSource(pictures(12))
    with stop_on_signals(lambda: said.append("stopping")) as should_stop:
        report = indexer.index("photos", source, progress=watch, should_stop=should_stop)
        assert (report.state, report.done, said) == ("stopped", 4, ["stopping"])
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == previous
    assert indexer.index("photos", source).done == 8


def test_an_interrupt_in_the_middle_loses_only_its_shard(
    store: Store, indexer: Indexer, pictures: Pictures
) -> None:
    def watch(progress: IndexProgress) -> None:
        if progress.done == 4 and progress.pending == 2:
            raise KeyboardInterrupt

    source = FolderSource(pictures(12))
    with pytest.raises(KeyboardInterrupt):
        indexer.index("photos", source, progress=watch)
    assert len(ids(store)) == 4
    report = indexer.index("photos", source)
    assert (report.done, report.skipped) == (8, 4)


def test_numbers_below_one_are_refused(store: Store, model: Any) -> None:
    for name in ("batch_size", "items_per_segment", "num_workers"):
        with pytest.raises(InputError, match=name):
            Indexer(store, model, **{name: 0})
