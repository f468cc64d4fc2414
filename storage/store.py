"""One library on disk: where its parts lie and how they are opened."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from sqlalchemy import Connection, insert, select

from ..errors import ConflictError, CorruptError, NotFoundError
from . import tables as t
from .assets import AssetFiles
from .catalog import Catalog
from .database import Database, sqlite_url
from .files import TEMPORARY, new_file, sync_new_folder
from .footprint import Footprint, footprint
from .lock import WriterLock
from .reader import Reader
from .records import Collection, Health, Problem
from .schema import is_current, upgrade
from .snapshot import Snapshot
from .writer import Writer

_MARK = "library.json"
_CATALOG = "catalog.db"
_LOCK = "writer.lock"


class Store:
    """A library: one folder with a catalog, asset files, segments and generations.

    library.json      marks the folder, and names the catalog that belongs to it
    catalog.db        unless the catalog is kept in PostgreSQL
    writer.lock       held by the process that writes
    assets/           files by content hash
    collections/ID/   segments/*.parquet and generations/g_000001/
    """

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self.catalog = Catalog(database)
        self.assets = AssetFiles(path / "assets")
        self._database = database
        self._reader = Reader(path / "collections", self.catalog)

    @classmethod
    def open(cls, path: Path, *, database_url: str | None = None, create: bool = False) -> "Store":
        """Open the library in a folder.

        A catalog of an older anyseek is migrated (under the writer's lock).

        Args:
            path: the library's folder.
            database_url: a SQLAlchemy URL, such as `postgresql+psycopg://host/name`, the same every time and
                of a database for this library alone; SQLite in the folder where None.
            create: make the library when the folder is missing or empty.

        Raises:
            NotFoundError: no library there and `create` is False.
            ConflictError: the folder holds something else, or the database belongs to another library.
            WriterBusyError: the catalog is to be made or migrated, and another process is writing.
            ConfigError: the database URL has no meaning here.
            StorageError: the catalog was written by a newer anyseek, or cannot be opened.
        """
        path = path.absolute()
        if not (path / _MARK).is_file():
            _check_absent(path, create=create)
            sync_new_folder(path)
        database = Database(database_url or sqlite_url(path / _CATALOG))
        try:
            if not _is_ready(path, database):
                _prepare(path, database)
        except BaseException:
            database.close()
            raise
        return cls(path, database)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the catalog's connections; snapshots taken before keep their vectors."""
        self._database.close()

    def collections(self) -> list[Collection]:
        """All collections, by name."""
        return self.catalog.collections()

    def collection(self, name: str) -> Collection:
        """One collection. Raises NotFoundError, listing the known names."""
        return self.catalog.collection(name)

    def writer(self) -> Writer:
        """The right to change the library, held until closed or until the process ends, however it ends.

        Deletes what a writer before may have left unfinished.

        Raises:
            WriterBusyError: another writer is open; names its process, host, command and start.
        """
        lock = WriterLock(self.path / _LOCK)
        try:
            return Writer(self.path / "collections", self.assets.folder, self._database, lock)
        except BaseException:
            lock.release()
            raise

    def snapshot(self, collection: str) -> Snapshot:
        """What is committed now. Costs one tiny query when nothing changed since the last call.

        Raises NotFoundError, listing the known names.
        """
        return self._reader.snapshot(collection)

    def footprint(self, snapshot: Snapshot) -> Footprint:
        """What the files behind a snapshot take on disk."""
        return footprint(self.path / "collections", self.catalog, snapshot)

    def health(self) -> Health:
        """Damage met so far by this store, and damage that writers recorded."""
        problems = {(each.collection, each.kind, each.name): each for each in self._reader.problems()}
        for collection, segment, num_items in self.catalog.damaged():
            problems[collection, "segment", segment.name] = Problem(
                collection=collection,
                kind="segment",
                name=segment.name,
                message=f"The segment '{segment.name}' is damaged; index its items again.",
                num_items=num_items,
            )
        return Health(tuple(problems.values()))


def _check_absent(path: Path, *, create: bool) -> None:
    """Refuse to open nothing, and to make a library among other people's files."""
    if not create:
        raise NotFoundError(f"There is no library in '{path}'; index something to make one.")
    if path.exists() and not path.is_dir():
        raise ConflictError(f"'{path}' is a file; a library needs a folder.")
    ours = (_CATALOG, _LOCK, TEMPORARY)
    others = [each.name for each in path.iterdir() if not each.name.startswith(ours)] if path.exists() else []
    if others:
        raise ConflictError(
            f"'{path}' holds other files ('{min(others)}') and is no library; pick a new or empty folder."
        )


def _is_ready(path: Path, database: Database) -> bool:
    """Whether the library is made, with today's tables. Raises ConflictError for another one's catalog."""
    mark = _read_mark(path)
    if mark is None or "catalog" not in mark:
        return False
    with database.read() as connection:
        if is_current(connection):
            _check_owner(path, database, mark, _owner(connection))
            return True
    return False


def _prepare(path: Path, database: Database) -> None:
    """Make or migrate the catalog, as the only writer.

    The mark names the library before its catalog does, and the catalog's kind after: at no moment can an
    empty catalog pass for that of a library with content, whose files its writer would delete as leftovers.
    """
    lock = WriterLock(path / _LOCK)
    try:
        mark = _read_mark(path)
        if mark is None:
            mark = {"id": uuid4().hex}
            _write_mark(path, mark)
        for folder in ("assets", "collections"):
            sync_new_folder(path / folder)
        with database.write() as connection:
            upgrade(connection)
            owner = _owner(connection)
            if owner is None and "catalog" not in mark:
                owner = mark["id"]
                connection.execute(insert(t.library).values(id=owner, created_at=datetime.now(UTC)))
            _check_owner(path, database, mark, owner)
        if "catalog" not in mark:
            _write_mark(path, mark | {"catalog": database.kind})
    finally:
        lock.release()


def _owner(connection: Connection) -> str | None:
    return connection.execute(select(t.library.c.id)).scalar()


def _check_owner(path: Path, database: Database, mark: Mapping[str, str], owner: str | None) -> None:
    kind = mark.get("catalog", database.kind)
    if owner == mark["id"] and database.kind == kind:
        return
    state = "is empty" if owner is None else "is of another kind or library"
    raise ConflictError(
        f"The library '{path}' keeps its catalog in {kind}; {database} {state}. "
        "Open it with the database that it was made with, or restore that from a copy.",
        code="storage.other_catalog",
    )


def _read_mark(path: Path) -> dict[str, str] | None:
    try:
        mark = json.loads((path / _MARK).read_text())
        return {name: mark[name] for name in ("id", "catalog") if name == "id" or name in mark}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"The file '{path / _MARK}' is damaged; restore it from a copy.") from error


def _write_mark(path: Path, mark: Mapping[str, str]) -> None:
    with new_file(path / _MARK) as temporary:
        temporary.write_text(json.dumps({"format": "anyseek library", **mark}))
