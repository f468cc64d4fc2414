"""The one process that changes a library."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

from .records import JSON, Collection, Generation, Item, Job, JobError, Rows, Segment, SpaceRecord


class Writer:
    """Changes a library; from `Store.writer()`, used as a context manager; safe from many threads."""

    def __enter__(self) -> Self:
        """Itself."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the lock back. Twice is fine."""
        raise NotImplementedError

    def create_collection(
        self, name: str, *, model: str, fingerprint: str, spaces: Sequence[SpaceRecord], views: Sequence[str]
    ) -> Collection:
        """A new empty collection, or the existing one of the same model, spaces and views.

        Raises:
            ConflictError: the name is taken by a collection of another model, other spaces or views.
            InputError: the name or a view is empty or has characters other than letters, digits and ` ._-`.
        """
        raise NotImplementedError

    def delete_collection(self, name: str) -> None:
        """Delete a collection with its items, jobs and files. Raises NotFoundError."""
        raise NotImplementedError

    def start_job(self, collection: str, spec: Mapping[str, JSON]) -> Job:
        """Start a job, or take up the one with the same spec that is running (its process died) or failed."""
        raise NotImplementedError

    def done_shards(self, job_id: str) -> set[int]:
        """Shards of a job that are committed."""
        raise NotImplementedError

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
        raise NotImplementedError

    def finish_job(self, job_id: str, state: Literal["done", "failed", "cancelled"]) -> Job:
        """Close a job: `done` and `cancelled` for good; `failed` is taken up again by the same spec."""
        raise NotImplementedError

    def remove(self, collection: str, item_ids: Sequence[str]) -> int:
        """Remove items; returns how many existed."""
        raise NotImplementedError

    def publish(self, collection: str) -> Generation:
        """Build a generation over all live rows and make it visible in one step.

        Returns the newest generation when nothing changed since and its files are intact. Segments found
        damaged are left out and marked; the previous generation is kept for readers that still start from it.
        """
        raise NotImplementedError
