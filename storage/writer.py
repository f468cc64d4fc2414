"""The one process that changes a library."""

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from uuid import uuid4

from sqlalchemy import Connection, select

from ..errors import ConflictError, CorruptError, InputError, StorageError
from . import changes
from . import tables as t
from .attributes import clean, merge
from .catalog import (
    LiveItem,
    find_collection,
    find_generations,
    find_job,
    find_live_items,
    find_segments,
    find_shard,
    generation_name,
)
from .checks import check_collection, check_items, check_json, check_rows
from .database import Database
from .files import remove, sync_new_folder
from .generations import Source, build_generation, verify_generation
from .lock import WriterLock
from .reader import generation_path, segment_path
from .records import (
    JSON,
    Collection,
    Generation,
    Item,
    Job,
    JobError,
    Rows,
    Segment,
    SpaceRecord,
)
from .segments import write_segment
from .sweep import sweep_collection, sweep_library


class Writer:
    """Changes a library; from `Store.writer()`, used as a context manager.

    Safe from many threads, one change at a time: a commit waits for a publishing to end.

    Args:
        folder: where the collections' folders lie.
        assets: where the asset files lie.
        database: of the same library.
        lock: held; the writer gives it back.
    """

    def __init__(self, folder: Path, assets: Path, database: Database, lock: WriterLock) -> None:
        self._folder = folder
        self._database = database
        self._lock = lock
        self._mutex = threading.RLock()
        sweep_library(folder, assets, database)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give the lock back. Twice is fine."""
        with self._mutex:
            self._lock.release()

    def create_collection(
        self,
        name: str,
        *,
        model: str,
        fingerprint: str,
        spaces: Sequence[SpaceRecord],
        views: Sequence[str],
        gallery: str = "predicted",
    ) -> Collection:
        """A new empty collection, or the existing one of the same model, spaces, views and gallery.

        Raises:
            ConflictError: the name is taken by a collection of another model, other spaces, views or gallery.
            InputError: the name has characters other than letters, digits, spaces and `._-`; a space or view
                is missing, comes twice or has characters other than `A-Za-z0-9_-`.
        """
        check_collection(name, spaces, views)
        with self._writing() as connection:
            taken = connection.execute(select(t.collections.c.id).where(t.collections.c.name == name)).first()
            if taken is None:
                changes.add_collection(
                    connection,
                    name,
                    model=model,
                    fingerprint=fingerprint,
                    spaces=spaces,
                    views=views,
                    gallery=gallery,
                )
            collection = find_collection(connection, name)
        _check_same(collection, model, fingerprint, spaces, views)
        if collection.gallery != gallery:
            raise ConflictError(
                f"Collection '{name}' holds vectors of the gallery '{collection.gallery}', not of "
                f"'{gallery}'; the two do not mix. Index with the same gallery, or into another collection.",
                code="collection.gallery",
            )
        return collection

    def delete_collection(self, name: str) -> None:
        """Delete a collection with its items, jobs and files. Raises NotFoundError."""
        with self._writing() as connection:
            collection = find_collection(connection, name)
            changes.drop_collection(connection, collection.id)
        remove(self._folder / collection.id)

    def start_job(self, collection: str, spec: Mapping[str, JSON]) -> Job:
        """Start a job, or take up the one with the same spec that is running (its process died) or failed."""
        check_json(spec, "spec of a job")
        with self._writing() as connection:
            job_id = changes.start_job(connection, find_collection(connection, collection).id, spec)
            return find_job(connection, job_id)

    def done_shards(self, job_id: str) -> set[int]:
        """Shards of a job that are committed."""
        with self._database.read() as connection:
            find_job(connection, job_id)
            shards = select(t.job_shards.c.shard).where(t.job_shards.c.job_id == job_id)
            return set(connection.execute(shards).scalars())

    def finish_job(self, job_id: str, state: Literal["done", "failed", "cancelled"]) -> Job:
        """Close a job: `done` and `cancelled` for good; `failed` is taken up again by the same spec."""
        with self._writing() as connection:
            find_job(connection, job_id)
            changes.set_job_state(connection, job_id, state)
            return find_job(connection, job_id)

    def commit(
        self,
        collection: str,
        *,
        items: Sequence[Item],
        rows: Rows,
        job: str | None = None,
        shard: int | None = None,
        errors: Sequence[JobError] = (),
    ) -> Segment | None:
        """Add items with their rows; an item that exists is replaced as a whole, with all its rows.

        When it returns, all of it is durable and findable; when it raises, none of it is. A shard that its
        job has committed already is left as it is: the call does nothing and returns that shard's segment, so
        a caller unsure of its last call may repeat it.

        Returns:
            The new segment, or None when there are no rows.

        Raises:
            NotFoundError: no such collection or job.
            InputError: an item or row that does not fit: a repeated id, an attribute of another type, vectors
                of another space, dimension or length, a row without its item.
            StorageError: the disk is full or not writable; the library stays searchable.
        """
        if job is None and (shard is not None or errors):
            raise InputError("Shards and errors belong to a job; start one and name it.")
        with self._alone():
            with self._database.read() as connection:
                owner = find_collection(connection, collection)
                if job is not None and find_job(connection, job).collection != collection:
                    raise InputError(f"The job '{job}' belongs to another collection than '{collection}'.")
                if job is not None and shard is not None:
                    is_done, segment = find_shard(connection, job, shard)
                    if is_done:
                        return segment
            check_items(items)
            check_rows(owner, items, rows)
            kept = [(item, clean(item)) for item in items]
            types = merge(owner.attributes, [(item.id, attributes) for item, attributes in kept])
            with self._sweeping(owner.id):
                segment = self._write_segment(owner, rows)
                with self._writing() as connection:
                    number = None
                    if items:
                        changes.set_attribute_types(connection, owner.id, owner.attributes, types)
                        segment, number = changes.replace_items(connection, owner.id, kept, segment)
                    if job is not None:
                        changes.add_shard(
                            connection, job, shard, segment_id=number, num_items=len(items), errors=errors
                        )
            return segment

    def remove(self, collection: str, item_ids: Sequence[str]) -> int:
        """Remove items; returns how many existed."""
        with self._writing() as connection:
            owner = find_collection(connection, collection)
            ids = changes.existing(connection, owner.id, list(dict.fromkeys(item_ids)))
            if ids:
                changes.drop_items(connection, owner.id, ids)
                revision = changes.next_revision(connection, owner.id, num_items=-len(ids))
                changes.add_removals(connection, owner.id, ids, revision)
            return len(ids)

    def publish(self, collection: str) -> Generation:
        """Build a generation over all live rows and make it visible in one step.

        Returns the newest generation when nothing changed since and its files are intact. Segments found
        damaged are left out and marked. The generation before, if intact, is kept to fall back to.

        Raises:
            NotFoundError: no such collection.
            StorageError: the disk is full or not writable; the library stays as it was.
        """
        with self._alone():
            with self._database.read() as connection:
                owner = find_collection(connection, collection)
                segments = find_segments(connection, owner.id)
                previous = next(iter(find_generations(connection, owner.id)), None)
                number = changes.last_generation(connection, owner.id) + 1
            if previous is not None and not self._is_intact(owner, previous):
                previous = None
            damaged = any(segment.state != "good" for segment in segments.values())
            if previous is not None and previous.revision == owner.revision and not damaged:
                return previous
            path = generation_path(self._folder, owner.id, generation_name(number))
            sync_new_folder(path.parent)
            sources = self._sources(owner, segments)
            with self._sweeping(owner.id):
                generation, left_out = build_generation(path, owner, owner.revision + 1, sources)
                with self._writing() as connection:
                    changes.switch(connection, owner.id, generation, previous)
                    changes.mark_segments(connection, owner.id, [segment.name for segment in left_out])
            self._sweep(owner.id)
            return generation

    @contextmanager
    def _alone(self) -> Generator[None]:
        with self._mutex:
            if not self._lock.is_held:
                raise StorageError("This writer is closed; open another with `Store.writer()`.")
            yield

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        with self._alone(), self._database.write() as connection:
            yield connection

    @contextmanager
    def _sweeping(self, collection_id: str) -> Generator[None]:
        """Delete the files of a change that fails."""
        try:
            yield
        except BaseException:
            # Those that the catalog does not know: a transaction may fail after it took effect.
            self._sweep(collection_id)
            raise

    def _sweep(self, collection_id: str) -> None:
        # What cannot be deleted now is deleted by the next writer.
        with suppress(StorageError):
            sweep_collection(self._folder, collection_id, self._database)

    def _sources(self, collection: Collection, segments: Mapping[int, Segment]) -> list[Source]:
        def items_of(number: int | None) -> Sequence[LiveItem]:
            with self._database.read() as connection:
                return find_live_items(connection, collection.id, t.items.c.segment_id == number)

        def path_of(segment: Segment) -> Path:
            return segment_path(self._folder, collection.id, segment.name)

        with_rows = [
            Source(segment, path_of(segment), partial(items_of, number))
            for number, segment in segments.items()
        ]
        return [*with_rows, Source(None, self._folder, partial(items_of, None))]

    def _is_intact(self, collection: Collection, generation: Generation) -> bool:
        path = generation_path(self._folder, collection.id, generation.name)
        try:
            verify_generation(path, generation, collection)
        except CorruptError:
            return False
        return True

    def _write_segment(self, collection: Collection, rows: Rows) -> Segment | None:
        if not len(rows):
            return None
        name = uuid4().hex
        path = segment_path(self._folder, collection.id, name)
        sync_new_folder(path.parent)
        num_bytes, sha256 = write_segment(path, collection, rows)
        return Segment(name, len(rows), num_bytes, sha256, revision=0)


def _check_same(
    collection: Collection, model: str, fingerprint: str, spaces: Sequence[SpaceRecord], views: Sequence[str]
) -> None:
    if collection.fingerprint != fingerprint:
        raise ConflictError(
            f"Collection '{collection.name}' holds vectors of the model '{collection.model}' "
            f"({collection.fingerprint[:12]}), not of '{model}' ({fingerprint[:12]}); vectors of two models "
            "do not mix. Index into another collection, or delete this one."
        )
    if collection.spaces != tuple(spaces) or collection.views != tuple(views):
        raise ConflictError(
            f"Collection '{collection.name}' has the spaces "
            f"{', '.join(space.name for space in collection.spaces)} and the views "
            f"{', '.join(collection.views)}; index with the same, or into another collection."
        )
