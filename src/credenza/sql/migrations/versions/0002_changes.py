"""Change slots: by them a list is known to be unchanged without reading its documents.

And a short pending list of the index on data, which every search reads from end to end: at the
default of 4 MiB that took 2 ms, ten times as long as finding 50 documents, and who filled it up
waited for all of it to be put in its place (PostgreSQL 65.4.4).
"""

import time

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = (
    """
    CREATE TABLE changes (
        collection text COLLATE "C" NOT NULL,
        slot smallint NOT NULL,
        n bigint NOT NULL,
        PRIMARY KEY (collection, slot)
    )
    """,
    "COMMENT ON TABLE changes IS 'each write of documents moves one slot of its collection'",
    # Whatever waits for a lock of this kind holds up all who come after it.
    "SET LOCAL lock_timeout = '2s'",
    "ALTER INDEX documents_data SET (gin_pending_list_limit = 256)",
)
DOWNGRADE = (
    "SET LOCAL lock_timeout = '2s'",
    "ALTER INDEX documents_data RESET (gin_pending_list_limit)",
    "DROP TABLE changes",
)


def upgrade() -> None:
    """Make the table, and give each collection a state that it has not had before.

    Else a way back and up again would bring states back that stood for other documents.
    """
    for statement in UPGRADE:
        op.execute(statement)
    now = time.time_ns() // 1000
    op.execute(
        "INSERT INTO changes (collection, slot, n)"
        f" SELECT collections.collection, 0, {now:d} FROM collections"
    )


def downgrade() -> None:
    """Drop the table."""
    for statement in DOWNGRADE:
        op.execute(statement)
