"""A connection to the catalog's database: SQLite or PostgreSQL behind one way to read and to write."""

import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, PoolProxiedConnection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from ..errors import ConfigError, CorruptError, StorageError

_BUSY_TIMEOUT_S = 30


class Database:
    """Transactions on the catalog. Safe from many threads.

    Args:
        url: a SQLAlchemy URL of SQLite or PostgreSQL.

    Raises:
        ConfigError: another kind of URL, or its driver is not installed.
    """

    def __init__(self, url: str | URL) -> None:
        self.url = _checked(url)
        self.kind = self.url.get_backend_name()
        self._engine = _sqlite(self.url) if self.kind == "sqlite" else _postgres(self.url)
        self._is_closed = False
        self._version_lock = threading.Lock()
        self._version_connection: PoolProxiedConnection | None = None
        self._writing = self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Generator[Connection]:
        """A transaction that sees one state of the database, whatever is committed meanwhile."""
        with self._errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Generator[Connection]:
        """A transaction that is durable when it ends, or had no effect when it raises."""
        with self._errors(), self._writing.begin() as connection:
            yield connection

    def version(self) -> int | None:
        """A number that changes with every commit, by any process; None where the database has none.

        Twenty times cheaper than the smallest query.
        """
        if self.kind != "sqlite":
            return None
        with self._errors(), self._version_lock:
            # Only a connection that never writes sees the number change with every commit.
            if self._version_connection is None:
                self._version_connection = self._engine.raw_connection()
            cursor = self._version_connection.cursor()
            return cursor.execute("PRAGMA data_version").fetchone()[0]

    def close(self) -> None:
        """Close the pooled connections."""
        with self._version_lock:
            self._is_closed = True
            if self._version_connection is not None:
                self._version_connection.close()
                self._version_connection = None
        self._engine.dispose()

    @contextmanager
    def _errors(self) -> Generator[None]:
        if self._is_closed:
            raise StorageError(f"The library with the catalog {self} has been closed; open it again.")
        try:
            yield
        except SQLAlchemyError as error:
            raise self._translated(error) from error

    def _translated(self, error: SQLAlchemyError) -> StorageError:
        cause = (error.orig if isinstance(error, DBAPIError) else None) or error
        reason = str(cause).strip().partition("\n")[0]
        if "malformed" in reason or "not a database" in reason or "disk image" in reason:
            return CorruptError(f"The catalog {self} is damaged ({reason}). Restore it from a copy.")
        if "disk is full" in reason or "No space left" in reason:
            return StorageError(
                f"Cannot write the catalog {self}: {reason}. Free some space and run it again.",
                code="storage.full",
            )
        return StorageError(f"The catalog {self} cannot do this: {reason}.")


def sqlite_url(path: Path) -> URL:
    """The URL of a SQLite file."""
    return URL.create("sqlite", database=str(path))


def _checked(url: str | URL) -> URL:
    try:
        url = make_url(url)
    except ArgumentError as error:
        raise ConfigError("The database URL cannot be parsed; write postgresql://user@host/name.") from error
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise ConfigError(f"No catalog can be kept in '{backend}'; use sqlite or postgresql.")
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: Any) -> None:
        # The driver would begin transactions late and for writes only; `begin` makes reads consistent too.
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes its lock at once: upgrading a read transaction fails without waiting.
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))

    _ = configure, begin
    return engine


def _postgres(url: URL) -> Engine:
    try:
        return create_engine(url, isolation_level="REPEATABLE READ", pool_pre_ping=True)
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError(
            f"The driver for '{url.drivername}' is not installed; install anyseek[postgres]."
        ) from error
