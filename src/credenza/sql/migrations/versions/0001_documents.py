"""Documents, collections and what belongs to them."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Text keys compare by code point (COLLATE "C"), whatever the database's collation is. Each key
# begins with the collection, which is the distribution key where PostgreSQL is sharded.
UPGRADE = (
    """
    CREATE TABLE collections (
        collection text COLLATE "C" NOT NULL,
        incarnation bigint NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        settings jsonb,
        purged boolean NOT NULL,
        PRIMARY KEY (collection)
    )
    """,
    "COMMENT ON COLUMN collections.settings IS 'NULL: the collection was deleted'",
    "COMMENT ON COLUMN collections.purged IS 'no row of a former incarnation is left'",
    """
    CREATE TABLE documents (
        collection text COLLATE "C" NOT NULL,
        id text COLLATE "C" NOT NULL,
        incarnation bigint NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        data jsonb,
        PRIMARY KEY (collection, id)
    )
    """,
    "COMMENT ON COLUMN documents.data IS 'NULL: a tombstone, kept for a day'",
    "CREATE INDEX documents_data ON documents USING gin (data jsonb_path_ops)",
    """
    CREATE INDEX documents_tombstones ON documents (collection, updated_at) WHERE data IS NULL
    """,
    """
    CREATE TABLE catalog (
        collection text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL,
        PRIMARY KEY (collection, name)
    )
    """,
    """
    CREATE TABLE secrets (
        collection text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL,
        value text NOT NULL,
        PRIMARY KEY (collection, name)
    )
    """,
)

DOWNGRADE = (
    "DROP TABLE secrets",
    "DROP TABLE catalog",
    "DROP TABLE documents",
    "DROP TABLE collections",
)


def upgrade() -> None:
    """Make the tables."""
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables, with everything in them."""
    for statement in DOWNGRADE:
        op.execute(statement)
