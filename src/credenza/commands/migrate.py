"""`credenza migrate`: bring the schema to the code's revision, or to another one.

The only module that uses Alembic and SQLAlchemy, in a process of its own. Revisions are numbers
that sort as text.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Final

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from cyclopts import Parameter
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from credenza import embedded, sql
from credenza.embedded import EmbeddedError
from credenza.settings import Settings

LOCK: Final = 0x6372_6564_656E_7A61
"""Key of the advisory lock, "credenza" in ASCII: one process migrates, the others wait."""

BASE: Final = "base"


def migrate(
    *, to: Annotated[str | None, Parameter(help="Revision; default: the newest.")] = None
) -> None:
    """Bring the database to the newest revision, or forward or back to another one.

    A database that is newer than this version is left as it is, so that a rollback can start.
    Going back to a revision drops what later ones have made; `base` drops everything.
    """
    settings = Settings.load()
    try:
        print(asyncio.run(_migrate(settings, to)))
    except DBAPIError as error:
        sys.exit(f"credenza: {error.orig}")
    except (EmbeddedError, CommandError, OSError, asyncpg.PostgresError) as error:
        sys.exit(f"credenza: {error}")


async def _migrate(settings: Settings, to: str | None) -> str:
    if url := settings.migration_url():
        return await _bring(settings, url, to)
    async with embedded.running(settings.credenza_home, _say) as own:
        return await _bring(settings, own, to)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


async def _bring(settings: Settings, url: str, to: str | None) -> str:
    connection = await _connect(settings, url)
    try:
        current = await _revision(connection)
    finally:
        await connection.close()
    if _is_reached(current, to):
        ahead = f", newer than this version's {sql.head()}" if (current or "") > sql.head() else ""
        return f"schema at {current or BASE}{ahead}: nothing to do"
    return await _run(settings, url, to)


async def _connect(settings: Settings, url: str) -> asyncpg.Connection:
    password = settings.database_password if settings.database_password_file else None
    return await asyncpg.connect(url, password=password, statement_cache_size=0)


async def _revision(connection: asyncpg.Connection) -> str | None:
    try:
        rows = await connection.fetch(sql.load()["get_revision"])
    except asyncpg.UndefinedTableError:
        return None
    return str(rows[0]["version_num"]) if rows else None


async def _run(settings: Settings, url: str, to: str | None) -> str:
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: _connect(settings, url)
    )
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(_run_locked, to)
    finally:
        await engine.dispose()


def _run_locked(connection: Connection, to: str | None) -> str:
    """Run the revisions in one transaction; who waited for the lock looks again.

    What takes long may: a time-out that the role has is for the service.
    """
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    current = MigrationContext.configure(connection).get_current_revision()
    if _is_reached(current, to):
        return f"schema at {current}: another process has migrated"
    config = Config()
    config.attributes["connection"] = connection
    config.set_main_option("script_location", str(Path(sql.__file__).parent / "migrations"))
    wanted = to or sql.head()
    if wanted == BASE or (current is not None and wanted < current):
        command.downgrade(config, wanted)
    else:
        command.upgrade(config, wanted)
    return f"schema: {current or BASE} -> {wanted}"


def _is_reached(current: str | None, to: str | None) -> bool:
    """Return whether there is nothing to do; a database ahead of the code is left alone."""
    if to is None:
        return current is not None and current >= sql.head()
    return (current or BASE) == to
