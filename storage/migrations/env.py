"""Runs the migrations on the connection that `schema.upgrade` hands over."""

from alembic import context
from anyseek.storage.tables import metadata

# Batch mode: SQLite can alter few things of a table in place.
context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
