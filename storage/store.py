"""One library on disk: where its parts lie and how they are opened."""

from pathlib import Path
from types import TracebackType
from typing import Self

from .assets import AssetFiles
from .catalog import Catalog
from .records import Collection, Health
from .snapshot import Snapshot
from .writer import Writer


class Store:
    """A library: one folder with a catalog, asset files, segments and generations."""

    path: Path
    catalog: Catalog
    assets: AssetFiles

    @classmethod
    def open(cls, path: Path, *, database_url: str | None = None, create: bool = False) -> "Store":
        """Open the library in a folder.

        A catalog of an older anyseek is migrated (under the writer's lock).

        Args:
            path: the library's folder.
            database_url: a SQLAlchemy URL, such as `postgresql+psycopg://host/name`; SQLite in the folder
                where None.
            create: make the library when the folder is missing or empty.

        Raises:
            NotFoundError: no library there and `create` is False.
            ConflictError: the folder holds something else, or the database belongs to another library.
            StorageError: the catalog was written by a newer anyseek, or cannot be opened.
        """
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Itself."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the catalog's connections; snapshots taken before keep their vectors."""
        raise NotImplementedError

    def collections(self) -> list[Collection]:
        """All collections, by name."""
        raise NotImplementedError

    def collection(self, name: str) -> Collection:
        """One collection. Raises NotFoundError, listing the known names."""
        raise NotImplementedError

    def writer(self) -> Writer:
        """The right to change the library, held until closed or until the process ends, however it ends.

        Raises:
            WriterBusyError: another writer is open; names its process, host, command and start.
        """
        raise NotImplementedError

    def snapshot(self, collection: str) -> Snapshot:
        """What is committed now. Costs one tiny query when nothing changed since the last call."""
        raise NotImplementedError

    def health(self) -> Health:
        """Damage met so far by this store, and damage that writers recorded."""
        raise NotImplementedError
