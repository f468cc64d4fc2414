"""The tables of the catalog. The migrations make them; a test holds the two together."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time; SQLite keeps no time zone, so it is UTC on the way in and out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """To UTC."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From UTC."""
        return value and (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))


def _owner(**options: Any) -> Column[str]:
    return Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), **options)


# One row: ties the database to its folder, so that neither is taken for another library's.
library = Table(
    "library",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
)

collections = Table(
    "collections",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("model", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("spaces", JSON, nullable=False),
    Column("views", JSON, nullable=False),
    Column("num_items", Integer, nullable=False),
    # Grows with every change that a search could see; readers compare it.
    Column("revision", Integer, nullable=False),
    # `removals` is complete for changes after this revision.
    Column("removals_since", Integer, nullable=False),
    Column("last_generation", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("gallery", String, nullable=False, server_default="predicted"),
)

attributes = Table(
    "attributes",
    metadata,
    _owner(primary_key=True),
    Column("key", String, primary_key=True),
    Column("type", String, nullable=False),
)

segments = Table(
    "segments",
    metadata,
    Column("id", Integer, primary_key=True),
    _owner(nullable=False, index=True),
    Column("name", String, nullable=False, unique=True),
    Column("num_rows", Integer, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("sha256", String, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", String, nullable=False),
)

# An item's rows are those in its segment; rows of its id in older segments are dead.
items = Table(
    "items",
    metadata,
    _owner(primary_key=True),
    Column("id", String, primary_key=True),
    Column("segment_id", ForeignKey("segments.id", ondelete="SET NULL")),
    Column("revision", Integer, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("signature", String, nullable=False),
    Column("source", String, nullable=False),
    Index(None, "collection_id", "revision"),
    # Both columns, or SQLite may read all of a collection to find the items of one segment.
    Index(None, "segment_id", "collection_id"),
)

assets = Table(
    "assets",
    metadata,
    Column("collection_id", String, primary_key=True),
    Column("item_id", String, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("modality", String, nullable=False),
    Column("path", String),
    Column("sha256", String),
    Column("value", JSON(none_as_null=True)),
    Column("media_type", String),
    ForeignKeyConstraint(
        ["collection_id", "item_id"], ["items.collection_id", "items.id"], ondelete="CASCADE"
    ),
)

# Items removed or replaced leave generations and fresh rows by these, until no reader can need them.
removals = Table(
    "removals",
    metadata,
    _owner(primary_key=True),
    Column("item_id", String, primary_key=True),
    Column("revision", Integer, nullable=False),
    Index(None, "collection_id", "revision"),
)

generations = Table(
    "generations",
    metadata,
    _owner(primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("num_items", Integer, nullable=False),
    Column("num_rows", Integer, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("sha256", String, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    _owner(nullable=False, index=True),
    Column("spec", JSON, nullable=False),
    Column("spec_sha256", String, nullable=False),
    Column("state", String, nullable=False),
    Column("num_items", Integer, nullable=False),
    Column("num_errors", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

# The ledger: a shard is here exactly when all it gave is committed.
job_shards = Table(
    "job_shards",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("segment_id", ForeignKey("segments.id", ondelete="SET NULL"), index=True),
)

job_errors = Table(
    "job_errors",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("shard", Integer),
    Column("path", String, nullable=False),
    Column("modality", String, nullable=False),
    Column("code", String, nullable=False),
    Column("message", String, nullable=False),
)
