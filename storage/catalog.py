"""Questions to the metadata database, answered with records."""

from collections.abc import Iterator, Sequence

from .records import Collection, Generation, Item, Job, JobError, Segment


class Catalog:
    """Read access to everything a library knows that is not a vector. Safe from many threads."""

    def collections(self) -> list[Collection]:
        """All collections, by name."""
        raise NotImplementedError

    def collection(self, name: str) -> Collection:
        """One collection. Raises NotFoundError, listing the known names."""
        raise NotImplementedError

    def items(self, collection: str, ids: Sequence[str]) -> list[Item]:
        """The items of those ids, in that order; ids that do not exist are left out."""
        raise NotImplementedError

    def page(self, collection: str, *, after: str = "", limit: int = 100) -> list[Item]:
        """The next `limit` items in the order of their ids; pass the last id of a page to get the next."""
        raise NotImplementedError

    def signatures(self, collection: str) -> Iterator[tuple[str, str]]:
        """(id, signature) of every item whose vectors are intact, so that others are indexed again."""
        raise NotImplementedError

    def segments(self, collection: str) -> list[Segment]:
        """All segments, oldest first."""
        raise NotImplementedError

    def generations(self, collection: str) -> list[Generation]:
        """The generations still kept, newest first."""
        raise NotImplementedError

    def jobs(self, collection: str | None = None) -> list[Job]:
        """Jobs, newest first, of one collection or of all."""
        raise NotImplementedError

    def job(self, job_id: str) -> Job:
        """One job. Raises NotFoundError."""
        raise NotImplementedError

    def job_errors(self, job_id: str, *, offset: int = 0, limit: int = 1000) -> list[JobError]:
        """The inputs that a job could not use, in the order they were met."""
        raise NotImplementedError
