"""The same catalog in PostgreSQL: one walk through everything that asks the database."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from anyseek.errors import ConflictError, InputError, StorageError
from anyseek.storage import Item, JobError, Rows, Store
from anyseek.storage.tables import metadata

_NO_ROWS = Rows((), (), {}, {})


def _binaries() -> Path | None:
    if shutil.which("pg_config"):
        found = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True).stdout.strip()
        if (Path(found) / "initdb").is_file():
            return Path(found)
    return None


def _user() -> str | None:
    """Who runs the server: it refuses root."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a PostgreSQL server of our own, on a Unix socket only."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (anyseek[postgres])")
    binaries, user = _binaries(), _user()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed (`pg_config --bindir` has no initdb)")
    if user is None:
        pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres or nobody")
    # Not under pytest's folder: only its owner may enter that.
    folder = Path(tempfile.mkdtemp(prefix="anyseek-pg-"))
    shutil.chown(folder, user)
    as_user = {"user": user} if os.getuid() == 0 else {}

    def run(*command: str) -> None:
        done = subprocess.run(
            [str(binaries / command[0]), *command[1:]], cwd=folder, capture_output=True, text=True, **as_user
        )
        if done.returncode != 0:
            pytest.fail(f"{command[0]}: {done.stdout} {done.stderr}")

    try:
        run(
            "initdb",
            "-D",
            f"{folder}/data",
            "-U",
            "anyseek",
            "-A",
            "trust",
            "-N",
            "--no-locale",
            "-E",
            "UTF8",
        )
        options = f"-k {folder} -c listen_addresses='' -F"
        run("pg_ctl", "-D", f"{folder}/data", "-w", "-t", "60", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql://anyseek@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", f"{folder}/data", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def store(server: str, tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "library", database_url=server, create=True) as store:
        yield store
        with store._database.write() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")


def test_its_tables_are_those_of_the_metadata(store: Store) -> None:
    with store._database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert not (store.path / "catalog.db").exists()


def test_the_whole_way(store: Store, server: str, samples) -> None:
    ids = [f"item ü {number}" for number in range(30)]
    with store.writer() as writer, Store.open(store.path, database_url=server) as reader:
        samples.create(writer)
        job = writer.start_job("photos", {"source": "x"})
        samples.commit(writer, ids[:20], job=job.id, shard=0, errors=[JobError("/a\0", "rgb", "c", "m")])
        assert writer.start_job("photos", {"source": "x"}).id == job.id
        assert all(samples.found(reader, id) for id in ids[:20])
        writer.publish("photos")
        assert writer.remove("photos", [ids[3], ids[4], "unknown"]) == 2
        samples.commit(writer, [ids[5], *ids[20:]], version=1, job=job.id, shard=1)
        with pytest.raises(InputError, match="'version'"):
            writer.commit("photos", items=[Item("x", attributes={"version": "one"})], rows=_NO_ROWS)
        snapshot = reader.snapshot("photos")
        assert snapshot.generation == "g_000001"
        assert sorted(snapshot.item_ids) == sorted({*ids} - {ids[3], ids[4]})
        assert samples.found(reader, ids[5], version=1)
        allowed = np.array([id == ids[7] for id in snapshot.item_ids])
        matches = snapshot.search("bind", "joint", np.eye(2, 12, dtype=np.float32), 3, allowed)
        assert (
            snapshot.items_of("joint", matches.rows[:, 0]).tolist() == [snapshot.ordinals_of([ids[7]])[0]] * 2
        )
        assert writer.publish("photos").num_rows == 28
        assert reader.catalog.items("photos", ids[:2]) == samples.items(ids[:2])
        page = reader.catalog.page("photos", after=ids[0], limit=100)
        assert len(page) == 27
        assert dict(reader.catalog.signatures("photos"))[ids[5]] == f"{ids[5]}-1"
        assert writer.done_shards(job.id) == {0, 1}
        assert (reader.catalog.job(job.id).num_items, reader.catalog.job(job.id).num_errors) == (31, 1)
        writer.finish_job(job.id, "done")
        next((store.path / "collections").rglob("*.parquet")).write_bytes(b"")
        writer.remove("photos", [ids[9]])
        writer.publish("photos")
        assert reader.health().state == "degraded"
        writer.delete_collection("photos")
        assert reader.collections() == reader.catalog.jobs() == []


def test_one_database_serves_one_library(store: Store, server: str, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="is of another kind or library"):
        Store.open(tmp_path / "other", database_url=server, create=True)
    with pytest.raises(ConflictError, match=r"keeps its catalog in postgresql; sqlite.* is empty"):
        Store.open(store.path, create=True)


def test_a_text_it_cannot_keep_is_refused_before(store: Store, samples) -> None:
    with store.writer() as writer:
        samples.create(writer)
        with pytest.raises(InputError):
            writer.commit("photos", items=[Item("a", attributes={"x": "\0"})], rows=_NO_ROWS)


def test_a_server_that_is_gone_is_named(tmp_path: Path, server: str) -> None:
    url = server.replace("anyseek-pg-", "anyseek-gone-")
    with pytest.raises(StorageError, match="anyseek-gone-"):
        Store.open(tmp_path / "library", database_url=url, create=True)
