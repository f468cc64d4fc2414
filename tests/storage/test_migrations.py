"""The migrations and the tables say the same."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from anyseek.storage.database import Database, sqlite_url
from anyseek.storage.schema import REVISIONS, is_current, upgrade
from anyseek.storage.tables import metadata
from sqlalchemy import inspect, text

_MIGRATIONS = Path(__file__).parents[2] / "storage" / "migrations"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(sqlite_url(tmp_path / "catalog.db"))


def test_migrating_from_nothing_gives_the_tables(database: Database) -> None:
    with database.write() as connection:
        assert not is_current(connection)
        upgrade(connection)
        assert is_current(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    # What autogenerate does not compare: foreign keys' actions.
    with database.read() as connection:
        for table in metadata.sorted_tables:
            actions = {
                tuple(key["constrained_columns"]): key["options"].get("ondelete")
                for key in inspect(connection).get_foreign_keys(table.name)
            }
            expected = {tuple(key.column_keys): key.ondelete for key in table.foreign_key_constraints}
            assert actions == expected, table.name
    database.close()


def test_migrating_twice_changes_nothing(database: Database) -> None:
    for _ in range(2):
        with database.write() as connection:
            upgrade(connection)
    database.close()


def test_a_migration_that_fails_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.write() as connection:
            upgrade(connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    database.close()


def test_collections_of_the_first_revision_keep_their_items_and_are_predicted(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        values = "'c', 'photos', 'm', 'f', '[]', '[]', 1, 1, 0, 0, '2026-01-01'"
        connection.execute(text(f"INSERT INTO collections VALUES ({values})"))
        connection.execute(text("INSERT INTO items VALUES ('c', 'a', NULL, 1, '{}', '', '')"))
        assert not is_current(connection)
        upgrade(connection)
    with database.read() as connection:
        assert connection.execute(text("SELECT name, gallery FROM collections")).all() == [
            ("photos", "predicted")
        ]
        assert connection.execute(text("SELECT id FROM items")).all() == [("a",)]
    database.close()


def test_every_revision_is_known_in_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    found = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS
    assert scripts.get_current_head() == REVISIONS[-1]


def test_sqlite_is_set_up_to_last(database: Database) -> None:
    with database.read() as connection:
        pragmas = {name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in _PRAGMAS}
    database.close()
    assert pragmas == _PRAGMAS


_PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}
