"""Which revision the catalog's tables have, and bringing them to the newest."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from ..errors import StorageError

# All revisions under migrations/versions, oldest first; a test holds the two together. Naming them here keeps
# Alembic out of every start-up that has nothing to migrate.
REVISIONS = ("0001", "0002")


def is_current(connection: Connection) -> bool:
    """Whether the tables are those of this anyseek; False for an empty or an older database.

    Raises:
        StorageError: a newer anyseek made them.
    """
    if not inspect(connection).has_table("alembic_version"):
        return False
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if revision is not None and revision not in REVISIONS:
        raise StorageError(
            f"The catalog has the tables of a newer anyseek (revision {revision}; this one knows "
            f"{', '.join(REVISIONS)}). Upgrade anyseek to open it.",
            code="storage.newer",
        )
    return revision == REVISIONS[-1]


def upgrade(connection: Connection) -> None:
    """Create or migrate all tables within the transaction of a connection."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
