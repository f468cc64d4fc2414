"""Opening a library: what is one, what is not, and whose catalog it is."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from anyseek.errors import (
    ConfigError,
    ConflictError,
    CorruptError,
    NotFoundError,
    StorageError,
    WriterBusyError,
)
from anyseek.storage import Store, Writer


def test_importing_the_room_loads_nothing_heavy() -> None:
    heavy = ("torch", "faiss", "sqlalchemy", "pyarrow", "alembic")
    code = f"import sys, anyseek.storage as s; s.Item; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    code = (
        "import sys, anyseek.storage as s; [getattr(s, n) for n in s.__all__]; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_nothing_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no library"):
        Store.open(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    with pytest.raises(NotFoundError):
        Store.open(tmp_path)


def test_a_library_may_be_made_in_an_empty_folder_and_opened_again(tmp_path: Path) -> None:
    Store.open(tmp_path / "new" / "library", create=True).close()
    (tmp_path / "empty").mkdir()
    Store.open(tmp_path / "empty", create=True).close()
    Store.open(tmp_path / "empty", create=True).close()
    Store.open(tmp_path / "empty").close()


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.jpg").write_bytes(b"")
    with pytest.raises(ConflictError, match=r"IMG_1\.jpg"):
        Store.open(tmp_path, create=True)
    with pytest.raises(ConflictError, match="is a file"):
        Store.open(tmp_path / "IMG_1.jpg", create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["IMG_1.jpg"]


def test_making_it_may_be_interrupted_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in ("new_file", "upgrade", "insert", "sync_new_folder", "_check_owner"):
        path = tmp_path / step
        with monkeypatch.context() as broken:
            broken.setattr(f"anyseek.storage.store.{step}", None)
            with pytest.raises(TypeError):
                Store.open(path, create=True)
        with Store.open(path, create=True) as store:
            assert store.collections() == []


def test_an_empty_catalog_is_never_taken_for_a_full_one(store: Store, writer: Writer, samples) -> None:
    """Its writer would delete every file as a leftover."""
    samples.commit(writer, ["a"])
    writer.close()
    store.close()
    for file in store.path.glob("catalog.db*"):
        file.unlink()
    for create in (False, True):
        with pytest.raises(ConflictError, match=r"keeps its catalog in sqlite; .* is empty"):
            Store.open(store.path, create=create)
    with pytest.raises(ConflictError):
        Store.open(store.path, database_url=f"sqlite:///{store.path}/elsewhere.db", create=True)
    assert list((store.path / "collections").rglob("*.parquet"))


def test_the_catalog_of_another_library_is_refused(store: Store, tmp_path: Path) -> None:
    Store.open(tmp_path / "other", create=True).close()
    with pytest.raises(ConflictError, match="is of another kind or library"):
        Store.open(tmp_path / "other", database_url=f"sqlite:///{store.path}/catalog.db")
    with pytest.raises(ConflictError, match="is of another kind or library"):
        Store.open(tmp_path / "third", database_url=f"sqlite:///{store.path}/catalog.db", create=True)


def test_a_library_may_be_moved(store: Store, writer: Writer, samples, tmp_path: Path) -> None:
    samples.commit(writer, ["a"])
    writer.publish("photos")
    writer.close()
    store.close()
    shutil.move(store.path, tmp_path / "moved")
    with Store.open(tmp_path / "moved") as moved:
        assert samples.found(moved, "a")


def test_the_catalog_of_a_newer_anyseek_is_refused(store: Store) -> None:
    store.close()
    with sqlite3.connect(store.path / "catalog.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StorageError, match=r"newer anyseek.*9999.*Upgrade") as caught:
        Store.open(store.path, create=True)
    assert caught.value.code == "storage.newer"


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_catalog_is_named(store: Store, content: bytes) -> None:
    store.close()
    (store.path / "catalog.db").write_bytes(content)
    with pytest.raises(CorruptError, match=r"catalog\.db.*damaged"):
        Store.open(store.path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_a_damaged_mark_is_named(store: Store, content: bytes) -> None:
    (store.path / "library.json").write_bytes(content)
    with pytest.raises(CorruptError, match=r"library\.json"):
        Store.open(store.path)


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name", "postgresql+nodriver://host/name"])
def test_a_database_url_without_meaning_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError):
        Store.open(tmp_path / "library", database_url=url, create=True)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = "postgresql://me:secret@127.0.0.1:1/nothing?connect_timeout=2"
    with pytest.raises(StorageError, match=r"me:\*\*\*@127") as caught:
        Store.open(tmp_path / "library", database_url=url, create=True)
    assert "secret" not in str(caught.value)


def test_migrating_waits_for_no_other_writer(store: Store) -> None:
    with store.writer(), sqlite3.connect(store.path / "catalog.db") as connection:
        connection.execute("DELETE FROM alembic_version")
        connection.commit()
        with pytest.raises(WriterBusyError):
            Store.open(store.path)
    connection.close()


def test_a_reader_sees_what_another_store_commits(store: Store, writer: Writer, samples) -> None:
    with Store.open(store.path) as reader:
        for number in range(3):
            samples.commit(writer, [f"{number}"])
            assert samples.found(reader, f"{number}")
            writer.publish("photos")
            assert reader.snapshot("photos").generation == f"g_{number + 1:06d}"
        writer.delete_collection("photos")
        with pytest.raises(NotFoundError):
            reader.snapshot("photos")
        samples.create(writer)
        assert reader.snapshot("photos").num_items == 0


def test_a_closed_store_says_so(store: Store, writer: Writer, samples) -> None:
    samples.commit(writer, ["a"])
    snapshot = store.snapshot("photos")
    store.close()
    for ask in (store.collections, lambda: store.snapshot("photos"), lambda: snapshot.items(["a"])):
        with pytest.raises(StorageError, match="closed"):
            ask()


def test_snapshots_outlive_their_store(store: Store, writer: Writer, samples) -> None:
    samples.commit(writer, ["a"])
    writer.publish("photos")
    with Store.open(store.path) as reader:
        snapshot = reader.snapshot("photos")
    shutil.rmtree(store.path / "collections")
    query = samples.vector("dino", "a", "joint")[None]
    assert snapshot.search("dino", "joint", query, 1).scores[0, 0] > 0.99
    assert snapshot.item_ids[0] == "a"
