"""Changes to the catalog, each within the transaction of the connection it is given."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, delete, insert, select, update

from . import tables as t
from .catalog import chunks
from .records import (
    JSON,
    Attribute,
    Generation,
    Item,
    JobError,
    JobState,
    Segment,
    SpaceRecord,
)


def add_collection(
    connection: Connection,
    name: str,
    *,
    model: str,
    fingerprint: str,
    spaces: Sequence[SpaceRecord],
    views: Sequence[str],
    gallery: str,
) -> str:
    """Insert an empty collection; returns its id."""
    collection_id = uuid4().hex[:12]
    connection.execute(
        insert(t.collections).values(
            id=collection_id,
            name=name,
            model=model,
            fingerprint=fingerprint,
            spaces=[asdict(space) for space in spaces],
            views=list(views),
            num_items=0,
            revision=0,
            removals_since=0,
            last_generation=0,
            created_at=datetime.now(UTC),
            gallery=gallery,
        )
    )
    return collection_id


def next_revision(connection: Connection, collection_id: str, *, num_items: int = 0) -> int:
    """Count a change, of some items more or fewer; returns the revision that it makes."""
    table = t.collections
    connection.execute(
        update(table)
        .where(table.c.id == collection_id)
        .values(revision=table.c.revision + 1, num_items=table.c.num_items + num_items)
    )
    return connection.execute(select(table.c.revision).where(table.c.id == collection_id)).scalar_one()


def drop_collection(connection: Connection, collection_id: str) -> None:
    """Delete a collection with all that belongs to it."""
    # Items first: else each segment deleted would look for the items that name it.
    connection.execute(delete(t.items).where(t.items.c.collection_id == collection_id))
    connection.execute(delete(t.collections).where(t.collections.c.id == collection_id))


def existing(connection: Connection, collection_id: str, ids: Sequence[str]) -> list[str]:
    """Those ids that items have."""
    found: list[str] = []
    for chunk in chunks(ids):
        query = select(t.items.c.id).where(t.items.c.collection_id == collection_id, t.items.c.id.in_(chunk))
        found += connection.execute(query).scalars()
    return found


def drop_items(connection: Connection, collection_id: str, ids: Sequence[str]) -> int:
    """Delete items with their assets; returns how many there were."""
    num_dropped = 0
    for chunk in chunks(ids):
        rows = delete(t.items).where(t.items.c.collection_id == collection_id, t.items.c.id.in_(chunk))
        num_dropped += connection.execute(rows).rowcount
    return num_dropped


def add_items(
    connection: Connection,
    collection_id: str,
    items: Sequence[tuple[Item, Mapping[str, Attribute]]],
    *,
    segment_id: int | None,
    revision: int,
) -> None:
    """Insert items, each with the attributes to keep, and their assets."""
    connection.execute(
        insert(t.items),
        [
            {
                "collection_id": collection_id,
                "id": item.id,
                "segment_id": segment_id,
                "revision": revision,
                "attributes": attributes,
                "signature": item.signature,
                "source": item.source,
            }
            for item, attributes in items
        ],
    )
    assets = [
        {
            "collection_id": collection_id,
            "item_id": item.id,
            "position": position,
            "modality": asset.modality,
            "path": asset.path,
            "sha256": asset.sha256,
            "value": asset.value,  # not `asdict`, which copies it
            "media_type": asset.media_type,
        }
        for item, _ in items
        for position, asset in enumerate(item.assets)
    ]
    if assets:
        connection.execute(insert(t.assets), assets)


def add_removals(connection: Connection, collection_id: str, ids: Sequence[str], revision: int) -> None:
    """Note that items were removed, for readers that still have them."""
    for chunk in chunks(ids):
        older = delete(t.removals).where(
            t.removals.c.collection_id == collection_id, t.removals.c.item_id.in_(chunk)
        )
        connection.execute(older)
        rows = [{"collection_id": collection_id, "item_id": id, "revision": revision} for id in chunk]
        connection.execute(insert(t.removals), rows)


def forget_removals(connection: Connection, collection_id: str, until: int) -> None:
    """Forget removals that no generation still kept needs."""
    connection.execute(
        delete(t.removals).where(t.removals.c.collection_id == collection_id, t.removals.c.revision <= until)
    )
    connection.execute(
        update(t.collections).where(t.collections.c.id == collection_id).values(removals_since=until)
    )


def set_attribute_types(
    connection: Connection, collection_id: str, known: Mapping[str, str], types: Mapping[str, str]
) -> None:
    """Keep the types of new keys, and of those that an int became a float in."""
    changed = {key: kind for key, kind in types.items() if known.get(key) != kind}
    if not changed:
        return
    table = t.attributes
    connection.execute(
        delete(table).where(table.c.collection_id == collection_id, table.c.key.in_(list(changed)))
    )
    rows = [{"collection_id": collection_id, "key": key, "type": kind} for key, kind in changed.items()]
    connection.execute(insert(table), rows)


def replace_items(
    connection: Connection,
    collection_id: str,
    items: Sequence[tuple[Item, Mapping[str, Attribute]]],
    segment: Segment | None,
) -> tuple[Segment | None, int | None]:
    """Put items, each with the attributes to keep, in the place of those with the same ids.

    Returns:
        The segment with its rows at its revision, and its number in the database.
    """
    num_replaced = drop_items(connection, collection_id, [item.id for item, _ in items])
    revision = next_revision(connection, collection_id, num_items=len(items) - num_replaced)
    number = None
    if segment is not None:
        segment = replace(segment, revision=revision)
        values = {"collection_id": collection_id, **asdict(segment)}
        row = insert(t.segments).values(values).returning(t.segments.c.id)
        number = connection.execute(row).scalar_one()
    add_items(connection, collection_id, items, segment_id=number, revision=revision)
    return segment, number


def last_generation(connection: Connection, collection_id: str) -> int:
    """The number of the newest generation ever published, 0 before the first."""
    table = t.collections
    return connection.execute(select(table.c.last_generation).where(table.c.id == collection_id)).scalar_one()


def switch(
    connection: Connection, collection_id: str, generation: Generation, previous: Generation | None
) -> None:
    """Make a generation the newest, keep the one before, and forget what neither needs."""
    revision = next_revision(connection, collection_id)
    assert revision == generation.revision, "another writer is at work"
    kept = [each.revision for each in (generation, previous) if each is not None]
    table = t.generations
    connection.execute(
        delete(table).where(table.c.collection_id == collection_id, table.c.revision.not_in(kept))
    )
    values: dict[str, Any] = asdict(generation)
    number = int(values.pop("name").removeprefix("g_"))
    connection.execute(insert(table).values(collection_id=collection_id, number=number, **values))
    connection.execute(
        update(t.collections).where(t.collections.c.id == collection_id).values(last_generation=number)
    )
    forget_removals(connection, collection_id, min(kept))
    _drop_dead_segments(connection, collection_id)


def _drop_dead_segments(connection: Connection, collection_id: str) -> None:
    """Forget segments whose items have all been removed or replaced."""
    live = select(t.items.c.id).where(t.items.c.segment_id == t.segments.c.id).exists()
    connection.execute(delete(t.segments).where(t.segments.c.collection_id == collection_id, ~live))


def mark_segments(connection: Connection, collection_id: str, corrupt: Sequence[str]) -> None:
    """Set the state of all segments of a collection: these are corrupt, all others good."""
    table = t.segments
    mine = table.c.collection_id == collection_id
    connection.execute(update(table).where(mine, table.c.state != "good").values(state="good"))
    for chunk in chunks(corrupt):
        connection.execute(update(table).where(mine, table.c.name.in_(chunk)).values(state="corrupt"))


def start_job(connection: Connection, collection_id: str, spec: Mapping[str, JSON]) -> str:
    """Take up the unfinished job of the same spec, or insert one; returns its id."""
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    now = datetime.now(UTC)
    unfinished = (
        select(t.jobs.c.id)
        .where(t.jobs.c.collection_id == collection_id, t.jobs.c.spec_sha256 == digest)
        .where(t.jobs.c.state.in_(["running", "failed"]))
        .order_by(t.jobs.c.created_at.desc())
    )
    job_id = connection.execute(unfinished).scalars().first()
    if job_id is not None:
        set_job_state(connection, job_id, "running")
        return job_id
    job_id = uuid4().hex[:12]
    connection.execute(
        insert(t.jobs).values(
            id=job_id,
            collection_id=collection_id,
            spec=spec,
            spec_sha256=digest,
            state="running",
            num_items=0,
            num_errors=0,
            created_at=now,
            updated_at=now,
        )
    )
    return job_id


def set_job_state(connection: Connection, job_id: str, state: JobState) -> None:
    """Set a job's state."""
    connection.execute(
        update(t.jobs).where(t.jobs.c.id == job_id).values(state=state, updated_at=datetime.now(UTC))
    )


def add_shard(
    connection: Connection,
    job_id: str,
    shard: int | None,
    *,
    segment_id: int | None,
    num_items: int,
    errors: Sequence[JobError],
) -> None:
    """Write a shard (None: only errors, of no shard) into a job's ledger and count what it gave."""
    if shard is not None:
        values = {"job_id": job_id, "shard": shard, "segment_id": segment_id}
        connection.execute(insert(t.job_shards).values(values))
    if errors:
        rows = [
            {"job_id": job_id, "shard": shard}
            | {name: _printable(text) for name, text in asdict(error).items()}
            for error in errors
        ]
        connection.execute(insert(t.job_errors), rows)
    connection.execute(
        update(t.jobs)
        .where(t.jobs.c.id == job_id)
        .values(
            num_items=t.jobs.c.num_items + num_items,
            num_errors=t.jobs.c.num_errors + len(errors),
            updated_at=datetime.now(UTC),
        )
    )


def _printable(text: str) -> str:
    # An error is always listed, also that of a file whose very name is broken.
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
