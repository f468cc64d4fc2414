"""Deletes what no reader can reach: leftovers of a crash, and what newer files have replaced."""

from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import select

from . import tables as t
from .catalog import find_generations, find_segments
from .database import Database
from .files import TEMPORARY, remove


def sweep_library(folder: Path, assets: Path, database: Database) -> None:
    """Delete everything that the catalog does not know; only for the one who holds the writer's lock.

    Args:
        folder: where the collections' folders lie.
        assets: where the asset files lie; of these only unfinished ones go.
        database: the catalog, which must be this folder's own.

    Raises:
        StorageError: the catalog cannot be asked; then nothing is deleted.
    """
    with database.read() as connection:
        known = set(connection.execute(select(t.collections.c.id)).scalars())
    _keep(folder, known)
    for collection_id in known:
        sweep_collection(folder, collection_id, database)
    for file in assets.glob(f"*/{TEMPORARY}*"):
        remove(file)


def sweep_collection(folder: Path, collection_id: str, database: Database) -> None:
    """The same for the segments and generations of one collection."""
    with database.read() as connection:
        segments = {
            f"{segment.name}.parquet" for segment in find_segments(connection, collection_id).values()
        }
        generations = {generation.name for generation in find_generations(connection, collection_id)}
    _keep(folder / collection_id / "segments", segments)
    _keep(folder / collection_id / "generations", generations)


def _keep(folder: Path, names: Iterable[str]) -> None:
    known = set(names)
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name not in known:
                remove(path)
