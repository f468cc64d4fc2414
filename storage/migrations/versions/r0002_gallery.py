"""Where the vectors of a collection come from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Until now, all were predicted."""
    # In place: rebuilding the table, as batch mode may, would cascade its deletion to all items.
    op.add_column(
        "collections", sa.Column("gallery", sa.String(), nullable=False, server_default="predicted")
    )
