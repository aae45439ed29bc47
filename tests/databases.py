"""Databases for tests: made empty, migrated by the command line, looked into behind the back."""

import asyncio
import itertools
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from credenza import sql
from servers import PATIENCE, Postgres, until
from service import CREDENZA, environment

_names = (f"d{number}" for number in itertools.count(1))
_templates: dict[Postgres, str] = {}

_QUERIES = sql.load()
_UPKEEP = [_QUERIES[name].split() for name in ("list_indexed", "list_indexes")]

_ENTRY = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \w+ \[\d+\] ", re.MULTILINE)
_STATEMENT = re.compile(r"(\S*) LOG:  (?:statement|execute [^:]+): (.*)", re.DOTALL)


async def create_database(server: Postgres, *changes: str) -> str:
    """Make an empty database that no other test uses, change it, and return its name."""
    until(lambda: "ready to accept connections" in server.log(), "PostgreSQL")
    name = next(_names)
    async with connected(server, "postgres") as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    async with connected(server, name) as connection:
        for change in changes:
            await connection.execute(change)
    return name


async def create_migrated(server: Postgres) -> str:
    """Make a database at the newest revision, as a copy of one that was migrated; its name."""
    if server not in _templates:
        template = await create_database(server)
        await asyncio.to_thread(migrated, server.database(template))
        _templates[server] = template
    name = next(_names)
    async with connected(server, "postgres") as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {_templates[server]}")
    return name


@asynccontextmanager
async def connected(server: Postgres, name: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect to a database for a while."""
    connection = await asyncpg.connect(server.database(name), timeout=PATIENCE)
    try:
        yield connection
    finally:
        await connection.close()


def migrate(url: str, *arguments: str, **settings: object) -> subprocess.Popen[str]:
    """Start `credenza migrate` on a database."""
    return subprocess.Popen(
        [CREDENZA, "migrate", *arguments],
        env=environment(database_url=url, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def migrated(url: str, *arguments: str, **settings: object) -> str:
    """Run `credenza migrate` to its end, which must be a good one, and return what it says."""
    process = migrate(url, *arguments, **settings)
    output, faults = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, faults
    return output.strip()


def statements(server: Postgres, name: str) -> list[str]:
    """Return all statements that a database has received, as its own log has them.

    Without those that a process sends of its own accord: signs of life, and what looks after the
    indexes at its start and after a change.
    """
    found = (_STATEMENT.match(entry) for entry in _ENTRY.split(server.log()))
    texts = [match[2].strip() for match in found if match and match[1] == name]
    return [text for text in texts if text != "select 1" and text.split() not in _UPKEEP]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition that a database is asked for holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


async def blocked(
    connection: asyncpg.Connection, number: int = 1, *, unless: Callable[[], bool] = lambda: False
) -> None:
    """Wait until so many sessions of the connection's database wait for a lock."""
    async with asyncio.timeout(PATIENCE):
        while await count_blocked(connection) < number:
            assert not unless(), "it waits for nothing"
            await asyncio.sleep(0.01)


async def count_blocked(connection: asyncpg.Connection) -> int:
    """Return how many sessions of the connection's database wait for a lock."""
    await connection.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees no news
    number: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return number


async def catalogue(connection: asyncpg.Connection) -> dict[str, list[Any]]:
    """Return what a schema is made of: columns, indexes, constraints, functions, comments."""
    return {
        part: [tuple(row) for row in await connection.fetch(text)]
        for part, text in _CATALOGUE.items()
    }


_OURS = "relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic_%'"
_CATALOGUE = {
    "relations": f"SELECT relname, relkind, reloptions FROM pg_class WHERE {_OURS} ORDER BY 1",
    "columns": f"""
        SELECT relname, attname, format_type(atttypid, atttypmod), collname, attnotnull,
               attidentity, attgenerated, pg_get_expr(adbin, adrelid),
               col_description(pg_class.oid, attnum)
        FROM pg_attribute
        JOIN pg_class ON pg_class.oid = attrelid
        LEFT JOIN pg_collation ON pg_collation.oid = attcollation
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE {_OURS} AND relkind = 'r' AND attnum > 0 AND NOT attisdropped ORDER BY 1, 2""",
    "indexes": f"""
        SELECT pg_get_indexdef(indexrelid), indisvalid, indisunique, indisprimary
        FROM pg_index JOIN pg_class ON pg_class.oid = indrelid WHERE {_OURS} ORDER BY 1""",
    "constraints": f"""
        SELECT relname, conname, pg_get_constraintdef(pg_constraint.oid), convalidated
        FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid WHERE {_OURS} ORDER BY 1, 2""",
    "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "functions": """
        SELECT pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace ORDER BY 1""",
}
