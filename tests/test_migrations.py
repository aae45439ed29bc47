"""The schema's history: forward, back, at the same time, interrupted, and from a newer version."""

import asyncio
import re
from pathlib import Path

import pytest

from conftest import Serve
from credenza import sql
from credenza.commands.migrate import LOCK
from databases import (
    blocked,
    catalogue,
    connected,
    create_database,
    create_migrated,
    migrate,
    migrated,
    statements,
)
from servers import Postgres, until

REVISIONS = sorted(
    path.name[:4] for path in (Path(sql.__file__).parent / "migrations/versions").glob("[0-9]*.py")
)
OLDEST, NEWEST = REVISIONS[0], REVISIONS[-1]
SEVERAL = 4

STORED = """
    INSERT INTO collections (collection, incarnation, version, created_at, updated_at, settings,
                             purged)
    VALUES ('c', 1, 1, '2026-01-01Z', '2026-01-01Z', '{}', true);
    INSERT INTO documents (collection, id, incarnation, version, created_at, updated_at, data)
    VALUES ('c', 'a', 1, 7, '2026-01-01Z', '2026-01-02Z', '{"n": 9007199254740993}'),
           ('c', 'gone', 1, 8, '2026-01-01Z', '2026-01-02Z', NULL);
    INSERT INTO catalog VALUES ('_catalog', 'c');
    INSERT INTO secrets VALUES ('_system', 'cursor', 'key');
"""
"""What a database at the oldest revision may hold."""

DOCUMENT = {
    "id": "a",
    "version": 7,
    "created_at": "2026-01-01T00:00:00.000000Z",
    "updated_at": "2026-01-02T00:00:00.000000Z",
    "data": {"n": 9007199254740993},
}


def count_creations(server: Postgres, name: str) -> int:
    """Return how often a database was told to make the table of documents."""
    return sum(text.startswith("CREATE TABLE documents") for text in statements(server, name))


async def test_a_migrated_database_is_a_fresh_one(postgres: Postgres, serve: Serve) -> None:
    """From the oldest revision with data, each step back and forward: same schema, same data."""
    fresh, old = await create_migrated(postgres), await create_database(postgres)
    url = postgres.database(old)
    assert migrated(url, "--to", OLDEST) == f"schema: base -> {OLDEST}"
    async with connected(postgres, fresh) as one, connected(postgres, old) as other:
        await other.execute(STORED)
        for revision in (*REVISIONS[1:], *REVISIONS[-2::-1], *REVISIONS[1:]):
            migrated(url, "--to", revision)
        assert await catalogue(other) == await catalogue(one)
    with serve(database_url=url).client() as client:
        assert client.get("/v1/data/c/a").json() == DOCUMENT
        assert client.get("/v1/data/c").json()["items"] == [DOCUMENT]
        assert client.put("/v1/data/c/gone", json=1).json()["version"] > 8


async def test_no_list_tag_comes_back_with_the_schema(postgres: Postgres, serve: Serve) -> None:
    """What is written while the schema has no change slots counts: a tag from before is void."""
    name = await create_database(postgres)
    url = postgres.database(name)
    migrated(url, "--to", OLDEST)
    tags = []
    async with connected(postgres, name) as connection:
        await connection.execute(STORED)
        for number in range(2):
            migrated(url)
            with serve(database_url=url).client() as client:
                found = client.get("/v1/data/c")
                tags.append(found.headers["etag"])
                assert found.json()["items"][0]["version"] == 7 + number
            migrated(url, "--to", OLDEST)
            await connection.execute("UPDATE documents SET version = version + 1 WHERE id = 'a'")
        migrated(url)
    with serve(database_url=url).client() as client:
        for tag in tags:
            answer = client.get("/v1/data/c", headers={"If-None-Match": tag})
            assert answer.status_code == 200
        known = {"If-None-Match": answer.headers["etag"]}
        assert client.get("/v1/data/c", headers=known).status_code == 304
        assert client.delete("/v1/data/c/a").status_code == 204
        assert client.get("/v1/data/c", headers=known).status_code == 200


async def test_back_to_nothing_and_up_again(postgres: Postgres) -> None:
    """`--to base` leaves none of our tables, indexes or functions; going up makes the same ones."""
    name = await create_migrated(postgres)
    async with connected(postgres, name) as connection:
        made = await catalogue(connection)
        await connection.execute(STORED)
        assert migrated(postgres.database(name), "--to", "base") == f"schema: {NEWEST} -> base"
        assert not any((await catalogue(connection)).values())
        assert migrated(postgres.database(name)) == f"schema: base -> {NEWEST}"
        assert await catalogue(connection) == made
        assert made["columns"]


async def test_keys_compare_by_code_point_and_begin_with_the_collection(
    postgres: Postgres,
) -> None:
    """Text is COLLATE "C" but where nothing compares it; no key goes across collections."""
    name = await create_migrated(postgres)
    async with connected(postgres, name) as connection:
        found = await catalogue(connection)
    texts = {
        (table, column): collation
        for table, column, kind, collation, *_ in found["columns"]
        if kind == "text"
    }
    assert texts.pop(("secrets", "value")) == "default"  # is never compared
    assert set(texts.values()) == {"C"}
    keys = [text for _, _, text, _ in found["constraints"] if text.startswith("PRIMARY KEY")]
    unique = [text for text, _, is_unique, _ in found["indexes"] if is_unique]
    assert len(keys) == len(unique) == len({table for table, _ in texts})
    assert all(re.search(r"\(collection[,)]", key) for key in (*keys, *unique)), (keys, unique)


async def test_those_who_start_at_once_migrate_once(postgres: Postgres) -> None:
    """Migrations that all see an empty database: one makes the tables, all end well."""
    name = await create_database(postgres)
    async with connected(postgres, name) as connection:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            started = [migrate(postgres.database(name)) for _ in range(SEVERAL)]
            await blocked(connection, SEVERAL)
        ends = [await asyncio.to_thread(each.communicate, timeout=60) for each in started]
    assert [each.returncode for each in started] == [0] * SEVERAL, ends
    said = sorted(output.strip() for output, _ in ends)
    assert said == [f"schema at {NEWEST}: another process has migrated"] * (SEVERAL - 1) + [
        f"schema: base -> {NEWEST}"
    ]
    assert count_creations(postgres, name) == 1


async def test_a_time_out_of_the_service_is_not_for_migrations(postgres: Postgres) -> None:
    """Who waits for another one's migration may wait longer than a statement of the service."""
    name = await create_database(postgres)
    async with connected(postgres, name) as connection:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            await connection.execute(f"ALTER DATABASE {name} SET statement_timeout = '100ms'")
            process = migrate(postgres.database(name))
            await blocked(connection)
            await asyncio.sleep(0.5)
        _, faults = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0, faults


async def test_nothing_to_do_costs_one_select(postgres: Postgres) -> None:
    """A database at the newest revision is asked for it and nothing else."""
    name = await create_migrated(postgres)
    before = len(statements(postgres, name))
    assert migrated(postgres.database(name)) == f"schema at {NEWEST}: nothing to do"
    cost = statements(postgres, name)[before:]
    assert cost == ["SELECT alembic_version.version_num FROM alembic_version"]


async def test_a_newer_database_is_left_alone_and_served(postgres: Postgres, serve: Serve) -> None:
    """A rollback starts: `migrate` says that the schema is newer, and the service is ready."""
    name = await create_migrated(postgres)
    async with connected(postgres, name) as connection:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        said = migrated(postgres.database(name))
        assert said == f"schema at 9999, newer than this version's {NEWEST}: nothing to do"
        with serve(database_url=postgres.database(name)).client() as client:
            assert client.post("/data", json=1).status_code == 201
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == "9999"
    assert count_creations(postgres, name) == 0


@pytest.mark.parametrize(("at", "to"), [(NEWEST, "no-such"), ("9999", OLDEST)])
async def test_unknown_revisions_are_refused_in_a_line(
    postgres: Postgres, at: str, to: str
) -> None:
    """What the code knows no way to ends with a message, not a traceback, and changes nothing."""
    name = await create_database(
        postgres,
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
        f"INSERT INTO alembic_version VALUES ('{at}')",
    )
    process = migrate(postgres.database(name), "--to", to)
    _, faults = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 1
    assert re.fullmatch(r"credenza: .+\n", faults), faults
    async with connected(postgres, name) as connection:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == at


async def test_an_interrupted_migration_leaves_nothing(postgres: Postgres) -> None:
    """Killed in the middle it has made no table, and the next one finds no lock."""
    name = await create_database(postgres)
    async with connected(postgres, name) as connection:
        standing_in_the_way = connection.transaction()
        await standing_in_the_way.start()
        await connection.execute("CREATE TABLE secrets (name text)")
        process = migrate(postgres.database(name))
        await blocked(connection)
        assert count_creations(postgres, name) == 1
        process.kill()
        await asyncio.to_thread(process.communicate, timeout=60)
        await standing_in_the_way.rollback()
        assert (await catalogue(connection))["relations"] == []
    assert migrated(postgres.database(name)) == f"schema: base -> {NEWEST}"


async def test_services_migrate_an_empty_database_themselves(
    postgres: Postgres, serve: Serve
) -> None:
    """Two that start at once on an empty database do it once, by MIGRATION_DATABASE_URL's role."""
    async with connected(postgres, "postgres") as connection:
        await connection.execute(
            "CREATE ROLE app LOGIN IN ROLE pg_read_all_data, pg_write_all_data"
        )
    name = await create_database(postgres)
    owner = postgres.database(name)
    app = owner.replace("tester", "app")
    services = [serve(wait=False, database_url=app, migration_database_url=owner) for _ in range(2)]
    for service in services:
        service.until_ready()
    assert count_creations(postgres, name) == 1
    with services[0].client() as one, services[1].client() as other:
        created = one.post("/data", json={"a": 1})
        assert other.get(created.headers["location"]).json() == created.json()
    async with connected(postgres, name) as connection:
        owners = await connection.fetch("SELECT DISTINCT tableowner FROM pg_tables"
                                        " WHERE schemaname = 'public'")  # fmt: skip
    assert [row["tableowner"] for row in owners] == ["tester"]


async def test_a_migration_that_fails_says_why_and_is_tried_again(
    postgres: Postgres, serve: Serve
) -> None:
    """A role without rights: one line by `migrate`, a 503 by the service until they are granted."""
    async with connected(postgres, "postgres") as connection:
        await connection.execute("CREATE ROLE powerless LOGIN")
    name = await create_database(postgres)
    url = postgres.database(name).replace("tester", "powerless")
    process = migrate(url)
    _, faults = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 1
    assert re.fullmatch(r"credenza: .*permission denied for schema public.*\n", faults), faults
    service = serve(wait=False, database_url=url)
    until(lambda: "migration failed" in service.log(), "the failure in the log")
    until(lambda: "serving" in service.output.read_text(), "the address")
    async with connected(postgres, name) as connection:
        await connection.execute("GRANT CREATE ON SCHEMA public TO powerless")
    service.until_ready()


async def test_the_service_never_loads_what_only_migrations_need(
    postgres: Postgres, serve: Serve
) -> None:
    """The interpreter's own list of imports has asyncpg, and neither Alembic nor SQLAlchemy."""
    name = await create_migrated(postgres)
    url = postgres.database(name)
    service = serve(database_url=url, pythonprofileimporttime=1, log_format="json")
    with service.client() as client:
        assert client.post("/data", json=1).status_code == 201
        assert client.get("/data?a=eq.1").status_code == 200
    assert {"alembic", "sqlalchemy", "asyncpg", "fastapi"} & imported(service.log()) == {
        "asyncpg",
        "fastapi",
    }
    process = migrate(url, pythonprofileimporttime=1)
    _, faults = await asyncio.to_thread(process.communicate, timeout=60)
    assert {"alembic", "sqlalchemy"} <= imported(faults)  # so the list would have shown them


def imported(report: str) -> set[str]:
    """Return the top names of the modules in a report of `-X importtime`."""
    return set(re.findall(r"^import time:.*\| +(\w+)", report, re.MULTILINE))
