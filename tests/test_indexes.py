"""Indexes that collections' settings ask for: made and dropped by themselves, whoever is ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import httpx2
import pytest
from asyncpg.transaction import Transaction

from conftest import Serve
from credenza import indexing, query
from databases import blocked, connected, create_migrated, eventually, statements
from servers import Postgres, until


def names_of(collection: str, *targets: str) -> set[str]:
    """Return the names of the indexes that a collection with these settings has."""
    return set(query.definitions(query.indexes(collection, targets)))


async def indexes(connection: asyncpg.Connection) -> dict[str, bool]:
    """Return the indexes that settings have asked for, and whether each is whole."""
    rows = await connection.fetch(
        "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid"
        " WHERE relname LIKE 'documents_by_%'"
    )
    return dict(rows)


async def until_indexed(connection: asyncpg.Connection, expected: set[str]) -> None:
    """Wait until these, whole, and no others are there."""
    await eventually(lambda: _are(connection, expected))


async def _are(connection: asyncpg.Connection, expected: set[str]) -> bool:
    return await indexes(connection) == dict.fromkeys(expected, True)


def missing(client: httpx2.Client) -> float:
    """Return how many indexes the service says are missing."""
    text = client.get("/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("credenza_indexes_missing ")]
    return float(line.split()[1])


def settle(client: httpx2.Client, collection: str, *targets: str) -> None:
    """Give a collection these indexes."""
    answer = client.put(f"/v1/collections/{collection}", json={"indexes": targets})
    assert answer.json()["settings"]["indexes"] == list(targets)


async def test_settings_make_and_drop_indexes(postgres: Postgres, serve: Serve) -> None:
    """Each change is followed, of one collection and of another; a deleted one has none."""
    name = await create_migrated(postgres)
    with serve(database_url=postgres.database(name)).client() as client:
        async with connected(postgres, name) as connection:
            settle(client, "c", "n", "a.b", "$updated_at")
            settle(client, "d", "n")
            await until_indexed(
                connection, names_of("c", "n", "a.b", "$updated_at") | names_of("d", "n")
            )
            client.patch("/v1/collections/c", json={"indexes": ["n"]})
            await until_indexed(connection, names_of("c", "n") | names_of("d", "n"))
            until(lambda: missing(client) == 0, "no index to be missing")
            client.patch("/v1/collections/d", json={"indexes": None})
            await until_indexed(connection, names_of("c", "n"))
            client.delete("/v1/collections/c", headers={"If-Match": "*"})
            await until_indexed(connection, set())


async def test_a_list_is_found_by_a_new_index(postgres: Postgres, serve: Serve) -> None:
    """The service's own statements, written as the index is, use it as soon as it is there."""
    name = await create_migrated(postgres)
    lines = b"".join(b'{"n": %d}\n' % number for number in range(5_000))
    with serve(database_url=postgres.database(name)).client() as client:
        settle(client, "c", "n")
        client.post("/v1/data/c/_import", content=lines, headers=NDJSON)
        async with connected(postgres, name) as connection:
            await until_indexed(connection, names_of("c", "n"))
            await connection.execute("VACUUM ANALYZE documents")  # as autovacuum would, soon after
            for asked, expected in (
                ("n=gte.100&n=lt.103", [100, 101, 102]),
                ("n=gt.4997&order=n.desc", [4999, 4998]),
                ("order=n.desc&limit=2", [4999, 4998]),
            ):
                before = await scans(connection)
                items = client.get(f"/v1/data/c?view=data&{asked}").json()["items"]
                assert sorted(item["n"] for item in items) == sorted(expected)
                await eventually(partial(_grow, connection, before))
            exported = client.get("/v1/data/c/_export?n=gt.4997&order=n.desc").text
            assert exported.split("\n") == ['{"n": 4999}', '{"n": 4998}', ""]


NDJSON = {"Content-Type": "application/x-ndjson"}


async def scans(connection: asyncpg.Connection) -> int:
    """Return how often the indexes have been read, as far as PostgreSQL has heard of it."""
    number: int = await connection.fetchval(
        "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname LIKE 'documents_by_%'"
    )
    return number


async def _grow(connection: asyncpg.Connection, before: int) -> bool:
    return await scans(connection) > before


@asynccontextmanager
async def writing(server: Postgres, name: str) -> AsyncIterator[Transaction]:
    """Open a transaction that has written to each document; no index is made meanwhile."""
    async with connected(server, name) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE documents SET version = version + 1")
        yield transaction


async def test_writes_go_on_while_an_index_is_made(postgres: Postgres, serve: Serve) -> None:
    """It waits for a transaction that is open, and nobody waits for it; it has every document."""
    name = await create_migrated(postgres)
    service = serve(database_url=postgres.database(name), query_timeout=1)
    with service.client() as client:
        client.put("/v1/data/c/before", json={"n": 1})
        async with connected(postgres, name) as connection, writing(postgres, name) as transaction:
            settle(client, "c", "n")
            await blocked(connection)
            await asyncio.sleep(1.5)  # longer than a statement of the service may take
            assert client.put("/v1/data/c/meanwhile", json={"n": 2}).status_code == 201
            assert len(client.get("/v1/data/c?n=gte.1").json()["items"]) == 2
            assert missing(client) == 1
            await transaction.rollback()
            await until_indexed(connection, names_of("c", "n"))
            assert "indexes cannot be made" not in service.log()
            assert len(client.get("/v1/data/c?n=gte.1").json()["items"]) == 2


async def test_what_was_left_half_made_is_made_anew(postgres: Postgres, serve: Serve) -> None:
    """An index whose making was ended with its process is dropped, and made by the next one."""
    name = await create_migrated(postgres)
    service = serve(database_url=postgres.database(name))
    with service.client() as client:
        client.put("/v1/data/c/a", json={"n": 1})
        async with connected(postgres, name) as connection, writing(postgres, name) as transaction:
            settle(client, "c", "n")
            await blocked(connection)
            service.kill()
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'CREATE INDEX%'"
                " AND pid <> pg_backend_pid()"
            )
            await transaction.rollback()
            assert await indexes(connection) == dict.fromkeys(names_of("c", "n"), False)
            serve(database_url=postgres.database(name))
            await until_indexed(connection, names_of("c", "n"))


async def test_one_process_works_at_a_time(postgres: Postgres, serve: Serve) -> None:
    """While another session holds the lock nothing is made; afterwards it is, without a request."""
    name = await create_migrated(postgres)
    with serve(database_url=postgres.database(name)).client() as client:
        async with connected(postgres, name) as connection:
            await connection.fetch(indexing.TRY_LOCK, indexing.LOCK)
            settle(client, "c", "n")
            until(lambda: tries(postgres, name) >= 1 + 2, "the service to have tried it twice")
            assert await indexes(connection) == {}
            assert missing(client) == 1
            await connection.execute("SELECT pg_advisory_unlock_all()")
            await until_indexed(connection, names_of("c", "n"))


def tries(server: Postgres, name: str) -> int:
    """Return how often somebody has asked for the lock."""
    return sum(indexing.TRY_LOCK in text for text in statements(server, name))


async def test_several_processes_agree(postgres: Postgres, serve: Serve) -> None:
    """Of processes that start at once on settings without indexes, none fails and all is made."""
    name = await create_migrated(postgres)
    async with connected(postgres, name) as connection:
        await connection.execute(
            "INSERT INTO collections VALUES ('c', 5, 5, now(), now(), "
            """'{"indexes": ["n", "a", "$version"]}', true);"""
            " INSERT INTO catalog VALUES ('_catalog', 'c')"
        )
        services = [serve(wait=False, database_url=postgres.database(name)) for _ in range(3)]
        for service in services:
            service.until_ready()
        await until_indexed(connection, names_of("c", "n", "a", "$version"))
        for service in services:
            assert "indexes cannot be made" not in service.log()


async def test_a_role_that_does_not_own_the_schema_serves_on(
    postgres: Postgres, serve: Serve
) -> None:
    """The log says what is wrong, lists are found without the index, and the owner can make it."""
    name = await create_migrated(postgres)
    async with connected(postgres, name) as connection:
        await connection.execute(
            f"DROP ROLE IF EXISTS {name}_app; CREATE ROLE {name}_app LOGIN PASSWORD 'app';"
            f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}_app"
        )
        owner = postgres.database(name)
        url = f"postgresql://{name}_app:app@{owner.rpartition('@')[2]}"
        service = serve(database_url=url)
        with service.client() as client:
            client.put("/v1/data/c/a", json={"n": 1})
            settle(client, "c", "n")
            until(lambda: "must be owner of table documents" in service.log(), "the warning")
            assert len(client.get("/v1/data/c?n=gte.1").json()["items"]) == 1
        serve(database_url=url, migration_database_url=owner)
        await until_indexed(connection, names_of("c", "n"))


@pytest.mark.parametrize(
    ("indexes", "pointer"),
    [
        (["n", "$id"], "/indexes/1"),
        (["$other"], "/indexes/0"),
        (["a,b"], "/indexes/0"),
        ([""], "/indexes/0"),
        (["a..b"], "/indexes/0"),
        (["x" * 257], "/indexes/0"),
        ([1], "/indexes/0"),
        (["n"] * 9, "/indexes"),
        ("n", "/indexes"),
    ],
    ids=str,
)
def test_what_cannot_be_indexed_is_refused(
    client: httpx2.Client, collection: str, indexes: Any, pointer: str
) -> None:
    """422 with a pointer to what is wrong, by PUT and by PATCH; nothing is changed."""
    path = f"/v1/collections/{collection}"
    client.put(path, json={"indexes": ["kept"]})
    for answer in (
        client.put(path, json={"indexes": indexes}),
        client.patch(path, json={"indexes": indexes}),
    ):
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert client.get(path).json()["settings"]["indexes"] == ["kept"]
