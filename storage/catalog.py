"""Questions to the metadata database, answered with records."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, bindparam, func, select

from ..errors import NotFoundError
from . import tables as t
from .database import Database
from .records import Asset, Attribute, Collection, Generation, Item, Job, JobError, Segment, SpaceRecord

# Ids per IN list: below the 32,766 variables of SQLite.
_CHUNK = 10_000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LiveItem:
    """What an index needs of an item; `segment` is the database's number of the segment with its rows."""

    id: str
    segment: int | None
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened to a collection after some revision, and what it is now, in one consistent read.

    `removals_since` is the oldest revision after which `removed` is complete.
    """

    collection: Collection
    removals_since: int
    items: Sequence[LiveItem]
    removed: Sequence[str]
    segments: Mapping[int, Segment]


# The queries of every search, built once: building one costs as much as SQLite takes to answer it.
_HEAD = select(t.collections.c.id, t.collections.c.revision).where(t.collections.c.name == bindparam("name"))
_ITEMS = select(t.items).where(
    t.items.c.collection_id == bindparam("owner"), t.items.c.id.in_(bindparam("ids", expanding=True))
)
_ASSETS = (
    select(t.assets)
    .where(
        t.assets.c.collection_id == bindparam("owner"),
        t.assets.c.item_id.in_(bindparam("ids", expanding=True)),
    )
    .order_by(t.assets.c.item_id, t.assets.c.position)
)


class Catalog:
    """Read access to everything a library knows that is not a vector. Safe from many threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collections(self) -> list[Collection]:
        """All collections, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(t.collections).order_by(t.collections.c.name)).all()
            return [_collection(connection, row) for row in rows]

    def collection(self, name: str) -> Collection:
        """One collection. Raises NotFoundError, listing the known names."""
        with self._database.read() as connection:
            return find_collection(connection, name)

    def head(self, name: str) -> tuple[str, int]:
        """(id, revision) of a collection: all a reader asks when nothing changed. Raises NotFoundError."""
        with self._database.read() as connection:
            return _head(connection, name)

    def version(self) -> int | None:
        """A number that changes with every commit to the catalog; None where the database has none."""
        return self._database.version()

    def items(self, collection: str, ids: Sequence[str]) -> list[Item]:
        """The items of those ids, in that order; ids that do not exist are left out."""
        with self._database.read() as connection:
            owner, _ = _head(connection, collection)
            found: dict[str, Item] = {}
            for chunk in chunks(ids):
                rows = connection.execute(_ITEMS, {"owner": owner, "ids": chunk}).all()
                found |= {item.id: item for item in _with_assets(connection, owner, rows)}
        return [found[id] for id in ids if id in found]

    def page(self, collection: str, *, after: str = "", limit: int = 100) -> list[Item]:
        """The next `limit` items in the order of their ids; pass the last id of a page to get the next."""
        with self._database.read() as connection:
            owner = find_collection(connection, collection).id
            query = select(t.items).where(t.items.c.collection_id == owner, t.items.c.id > after)
            rows = connection.execute(query.order_by(t.items.c.id).limit(limit)).all()
            return _with_assets(connection, owner, rows)

    def signatures(self, collection: str) -> Iterator[tuple[str, str]]:
        """(id, signature) of every item whose vectors are intact, so that the others are indexed again."""
        owner = self.collection(collection).id
        query = (
            select(t.items.c.id, t.items.c.signature)
            .outerjoin(t.segments, t.items.c.segment_id == t.segments.c.id)
            .where(t.items.c.collection_id == owner, func.coalesce(t.segments.c.state, "good") == "good")
            .order_by(t.items.c.id)
            .limit(_CHUNK)
        )
        last = ""
        while True:
            with self._database.read() as connection:
                rows = connection.execute(query.where(t.items.c.id > last)).all()
            if not rows:
                return
            yield from ((row.id, row.signature) for row in rows)
            last = rows[-1].id

    def segments(self, collection: str) -> list[Segment]:
        """All segments, oldest first."""
        with self._database.read() as connection:
            return list(find_segments(connection, find_collection(connection, collection).id).values())

    def generations(self, collection: str) -> list[Generation]:
        """The generations still kept, newest first."""
        with self._database.read() as connection:
            return find_generations(connection, find_collection(connection, collection).id)

    def damaged(self) -> list[tuple[str, Segment, int]]:
        """(collection name, segment, its live items) of every segment that a writer found damaged."""
        count = (
            select(func.count())
            .select_from(t.items)
            .where(t.items.c.segment_id == t.segments.c.id)
            .scalar_subquery()
        )
        query = (
            select(t.segments, t.collections.c.name.label("owner"), count.label("num_items"))
            .join(t.collections)
            .where(t.segments.c.state != "good")
            .order_by(t.segments.c.id)
        )
        with self._database.read() as connection:
            return [(row.owner, _segment(row), row.num_items) for row in connection.execute(query)]

    def jobs(self, collection: str | None = None) -> list[Job]:
        """Jobs, newest first, of one collection or of all."""
        with self._database.read() as connection:
            query = _jobs_query().order_by(t.jobs.c.created_at.desc(), t.jobs.c.id)
            if collection is not None:
                query = query.where(t.jobs.c.collection_id == find_collection(connection, collection).id)
            return [_job(row) for row in connection.execute(query)]

    def job(self, job_id: str) -> Job:
        """One job. Raises NotFoundError."""
        with self._database.read() as connection:
            return find_job(connection, job_id)

    def job_errors(self, job_id: str, *, offset: int = 0, limit: int = 1000) -> list[JobError]:
        """The inputs that a job could not use, in the order they were met."""
        query = (
            select(t.job_errors)
            .where(t.job_errors.c.job_id == job_id)
            .order_by(t.job_errors.c.id)
            .offset(offset)
            .limit(limit)
        )
        with self._database.read() as connection:
            find_job(connection, job_id)
            return [
                JobError(row.path, row.modality, row.code, row.message) for row in connection.execute(query)
            ]

    def changes(self, name: str, since: int) -> Changes:
        """What changed in a collection after a revision (-1: everything it has)."""
        with self._database.read() as connection:
            collection = find_collection(connection, name)
            complete_since = select(t.collections.c.removals_since).where(t.collections.c.id == collection.id)
            removed = select(t.removals.c.item_id).where(
                t.removals.c.collection_id == collection.id, t.removals.c.revision > since
            )
            items = find_live_items(connection, collection.id, t.items.c.revision > since)
            return Changes(
                collection=collection,
                removals_since=connection.execute(complete_since).scalar_one(),
                items=items,
                removed=connection.execute(removed).scalars().all(),
                segments=find_segments(connection, collection.id, since),
            )


def chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Values in lists short enough for one IN."""
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))


def find_collection(connection: Connection, name: str) -> Collection:
    """One collection. Raises NotFoundError, listing the known names."""
    row = connection.execute(select(t.collections).where(t.collections.c.name == name)).one_or_none()
    if row is None:
        names = (
            connection.execute(select(t.collections.c.name).order_by(t.collections.c.name)).scalars().all()
        )
        known = f"it has {', '.join(repr(known) for known in names)}" if names else "it has none yet"
        raise NotFoundError(f"The library has no collection '{name}'; {known}.")
    return _collection(connection, row)


def _head(connection: Connection, name: str) -> tuple[str, int]:
    """(id, revision) of a collection. Raises NotFoundError, listing the known names."""
    row = connection.execute(_HEAD, {"name": name}).one_or_none()
    if row is not None:
        return row.id, row.revision
    collection = find_collection(connection, name)  # raises, with the names
    return collection.id, collection.revision


def find_job(connection: Connection, job_id: str) -> Job:
    """One job. Raises NotFoundError."""
    row = connection.execute(_jobs_query().where(t.jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"The library has no job '{job_id}'.")
    return _job(row)


def find_segments(connection: Connection, collection_id: str, since: int = -1) -> dict[int, Segment]:
    """Segments newer than a revision, by their number in the database, oldest first."""
    query = (
        select(t.segments)
        .where(t.segments.c.collection_id == collection_id, t.segments.c.revision > since)
        .order_by(t.segments.c.id)
    )
    return {row.id: _segment(row) for row in connection.execute(query)}


def find_generations(connection: Connection, collection_id: str) -> list[Generation]:
    """The generations still kept, newest first."""
    query = (
        select(t.generations)
        .where(t.generations.c.collection_id == collection_id)
        .order_by(t.generations.c.number.desc())
    )
    return [
        Generation(
            name=generation_name(row.number),
            revision=row.revision,
            num_items=row.num_items,
            num_rows=row.num_rows,
            num_bytes=row.num_bytes,
            sha256=row.sha256,
            created_at=row.created_at,
        )
        for row in connection.execute(query)
    ]


def find_shard(connection: Connection, job_id: str, shard: int) -> tuple[bool, Segment | None]:
    """Whether a job has committed a shard, and the segment with its rows if that still exists."""
    query = (
        select(t.job_shards.c.shard, t.segments)
        .outerjoin(t.segments, t.job_shards.c.segment_id == t.segments.c.id)
        .where(t.job_shards.c.job_id == job_id, t.job_shards.c.shard == shard)
    )
    row = connection.execute(query).one_or_none()
    return row is not None, None if row is None or row.id is None else _segment(row)


def find_live_items(connection: Connection, collection_id: str, condition: Any) -> list[LiveItem]:
    """Items of a collection that meet a condition, by id."""
    query = select(t.items.c.id, t.items.c.segment_id, t.items.c.attributes).where(
        t.items.c.collection_id == collection_id, condition
    )
    found = [LiveItem(row.id, row.segment_id, row.attributes) for row in connection.execute(query)]
    # Asked for the order, SQLite would read all of the collection by id instead of the few by the condition.
    return sorted(found, key=lambda item: item.id)


def generation_name(number: int) -> str:
    """Such as `g_000042`."""
    return f"g_{number:06d}"


def _collection(connection: Connection, row: Row[Any]) -> Collection:
    query = (
        select(t.attributes.c.key, t.attributes.c.type)
        .where(t.attributes.c.collection_id == row.id)
        .order_by(t.attributes.c.key)
    )
    return Collection(
        id=row.id,
        name=row.name,
        model=row.model,
        fingerprint=row.fingerprint,
        spaces=tuple(SpaceRecord(**space) for space in row.spaces),
        views=tuple(row.views),
        attributes={attribute.key: attribute.type for attribute in connection.execute(query)},
        num_items=row.num_items,
        revision=row.revision,
        created_at=row.created_at,
        gallery=row.gallery,
    )


def _segment(row: Row[Any]) -> Segment:
    return Segment(row.name, row.num_rows, row.num_bytes, row.sha256, row.revision, row.state)


def _with_assets(connection: Connection, collection_id: str, rows: Sequence[Row[Any]]) -> list[Item]:
    assets: dict[str, list[Asset]] = {row.id: [] for row in rows}
    for chunk in chunks(list(assets)):
        for row in connection.execute(_ASSETS, {"owner": collection_id, "ids": chunk}):
            asset = Asset(row.modality, row.path, row.sha256, row.value, row.media_type)
            assets[row.item_id].append(asset)
    return [Item(row.id, tuple(assets[row.id]), row.attributes, row.signature, row.source) for row in rows]


def _jobs_query() -> Select[Any]:
    shards = (
        select(func.count())
        .select_from(t.job_shards)
        .where(t.job_shards.c.job_id == t.jobs.c.id)
        .scalar_subquery()
    )
    return select(t.jobs, t.collections.c.name.label("owner"), shards.label("num_shards")).join(t.collections)


def _job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        collection=row.owner,
        spec=row.spec,
        state=row.state,
        num_shards=row.num_shards,
        num_items=row.num_items,
        num_errors=row.num_errors,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
