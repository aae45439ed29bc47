"""The service on each database that it is promised for, and with a password that changes.

The wheel's PostgreSQL 18 as an external server, Debian's 15 with an English collation, and the
latter behind PgBouncer in transaction mode, which knows no prepared statements.
"""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from answers import problem
from conftest import Serve
from databases import connected, create_database, create_migrated, statements
from servers import PgBouncer, Postgres
from service import Running
from test_lists import fill, walk

WORDS = ["a", "B", "b", "Z", "_", "-x", "ä", "Ä", "z", "é", "1", "A", "\u00df", "\uffff", "😀"]


@pytest.fixture(scope="module", params=["wheel", "debian", "pgbouncer"])
def on(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Serve each kind of database in turn; each starts empty."""
    settings = SERVED[request.param](request)
    running = Running(tmp_path_factory.mktemp("service"), **settings).start()
    yield running
    assert running.stop() == 0


def direct(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    """Return the settings for a server without a pooler."""
    server: Postgres = request.getfixturevalue(name)
    return {"database_url": server.database(asyncio.run(create_database(server)))}


def pooled(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the settings for PgBouncer."""
    pooler: PgBouncer = request.getfixturevalue("pgbouncer")
    server: Postgres = request.getfixturevalue("debian")
    name = asyncio.run(create_database(server))
    return {
        "database_url": pooler.url(name),
        "migration_database_url": server.database(name),
        "database_statement_cache": 0,
    }


SERVED = {
    "wheel": lambda request: direct(request, "postgres"),
    "debian": lambda request: direct(request, "debian"),
    "pgbouncer": pooled,
}


@pytest.fixture
def client(on: Running) -> Iterator[httpx2.Client]:
    """A client of the service on the database at hand, instead of the embedded one."""
    with on.client() as client:
        yield client


def test_one_document_through_its_life(client: httpx2.Client, collection: str) -> None:
    """Create, read, replace under a condition, patch, delete, create again."""
    created = client.post(f"/v1/data/{collection}", content=b'{"n":9007199254740993,"x":1e400}')
    assert created.status_code == 201
    path = created.headers["location"]
    assert client.get(path).json() == created.json()
    tag = {"If-Match": created.headers["etag"]}
    replaced = client.put(path, json={"a": 1, "b": 2}, headers=tag)
    assert replaced.status_code == 200
    refused = problem(client.put(path, json=0, headers=tag), 412, "precondition-failed")
    assert refused["current"] == replaced.json()
    assert client.patch(path, json={"b": None}).json()["data"] == {"a": 1}
    assert client.delete(path).status_code == 204
    problem(client.get(path), 404, "not-found")
    again = client.put(path, json=1, headers={"If-None-Match": "*"})
    assert again.status_code == 201
    assert again.json()["version"] > replaced.json()["version"]


def test_strings_compare_by_code_point(client: httpx2.Client, collection: str) -> None:
    """Order, comparison and pages of fields and ids, whatever the collation of the database is."""
    path = f"/v1/data/{collection}"
    fill(client, collection, *({"s": word} for word in WORDS))
    ascending = [item["s"] for item in walk(client, path, order="s", view="data", limit=2)]
    assert ascending == sorted(WORDS)
    descending = [item["s"] for item in walk(client, path, order="s.desc", view="data", limit=4)]
    assert descending == sorted(WORDS, reverse=True)
    for word in WORDS:
        above = walk(client, path, s=f'gt."{word}"', view="data")
        assert {item["s"] for item in above} == {each for each in WORDS if each > word}
    ids = ["a", "B", "b", "Z", "1", "A", "-x", "a-b", "ab", "~"]
    for id_ in ids:
        client.put(f"{path}-ids/{id_}", json=0)
    assert [item["id"] for item in walk(client, f"{path}-ids", limit=3)] == sorted(ids)
    assert {item["id"] for item in walk(client, f"{path}-ids", **{"$id": "gt.Z"})} == {
        id_ for id_ in ids if id_ > "Z"
    }


async def test_debian_s_order_is_another(debian: Postgres) -> None:
    """So that the test above can fail there: by default that database orders as a dictionary."""
    name = await create_database(debian)
    async with connected(debian, name) as connection:
        rows = await connection.fetch("SELECT w FROM unnest($1::text[]) AS w ORDER BY w", WORDS)
        assert await connection.fetchval("""SELECT '"a"'::jsonb < '"B"'::jsonb""")
    assert [row["w"] for row in rows] != sorted(WORDS)


def test_filters_and_selection(client: httpx2.Client, collection: str) -> None:
    """Equality, comparison and parts of documents."""
    fill(client, collection, *({"n": n, "in": {"ner": [n % 3]}, "x": n} for n in range(10)))
    path = f"/v1/data/{collection}"
    found = client.get(f"{path}?n=gte.4&n=lt.9&in.ner=eq.[1]&order=n.desc&select=n&view=data")
    assert found.json()["items"] == [{"n": 7}, {"n": 4}]


def test_what_goes_in_comes_out(client: httpx2.Client, collection: str) -> None:
    """An import of three chunks with ids, exported in order; a second one is refused."""
    lines = "".join(f'{{"id":"{n:04}","data":{{"n":{n}}}}}\n' for n in range(1200))
    path, head = f"/v1/data/{collection}", {"Content-Type": "application/x-ndjson"}
    report = client.post(f"{path}/_import?view=document", content=lines, headers=head)
    assert report.json() == {"taken": 1200, "written": 1200}
    exported = client.get(f"{path}/_export?view=data").text.splitlines()
    assert exported == [f'{{"n": {n}}}' for n in range(1200)]
    large = f'"{"x" * 100_000}"'
    replacing = f"{path}/_import?view=document&on_conflict=replace"
    line = f'{{"id":"0001","data":{large}}}\n'
    assert client.post(replacing, content=line, headers=head).json()["written"] == 1
    assert client.get(f"{path}/_export?$id=lte.0002").text.splitlines()[1] == large
    again = client.post(f"{path}/_import?view=document", content=lines, headers=head)
    assert problem(again, 422, "import-failed")["taken"] == 0


async def test_many_at_once_get_their_own_answers(on: Running, collection: str) -> None:
    """Forty clients at different things: a pooler's servers change hands between statements."""

    async def work(client: httpx2.AsyncClient, number: int) -> None:
        path = f"/v1/data/{collection}/{number}"
        for turn in range(5):
            data = {"number": number, "turn": turn}
            put = await client.put(path, json=data)
            assert (await client.get(path)).json() == put.json()
            query = f"/v1/data/{collection}?number=eq.{number}&view=data"
            assert (await client.get(query)).json()["items"] == [data]
            assert (await client.patch(path, json={"more": 1})).json()["data"] == data | {"more": 1}

    async with on.async_client(40) as client:
        await asyncio.gather(*(work(client, number) for number in range(40)))


# The database's password


async def test_a_rotated_password_is_read_at_the_next_connect(
    postgres: Postgres, serve: Serve, tmp_path: Path
) -> None:
    """ALTER ROLE, the file, the end of old connections: served on by the same process."""
    name, role, url, file = await rotating(postgres, tmp_path)
    async with connected(postgres, name) as admin:
        with serve(database_url=url, database_password_file=file).client() as client:
            assert client.put("/data/a", json=1).status_code == 201
            await admin.execute(f"ALTER ROLE {role} PASSWORD 'two'")
            await end_connections(admin, role)
            problem(client.get("/data/a"), 503, "unavailable")
            assert client.get("/health/ready").json()["checks"]["database"]["status"] == "down"
            file.write_text("two\n")
            assert client.get("/data/a").json()["data"] == 1
            assert client.put("/data/a", json=2).status_code == 200
        await until_refused(postgres, name, role, "one")


async def test_a_new_password_may_be_in_the_file_first(
    postgres: Postgres, serve: Serve, tmp_path: Path
) -> None:
    """Before ALTER ROLE the last password goes on; after it each connection is a new one by itself.

    No connection is cut, and no request fails.
    """
    name, role, url, file = await rotating(postgres, tmp_path)
    async with connected(postgres, name) as admin:
        with serve(database_url=url, database_password_file=file).client() as client:
            assert client.put("/data/a", json=1).status_code == 201
            file.write_text("two\n")
            await end_connections(admin, role)
            assert client.put("/data/a", json=2).status_code == 200
            before = await admin.fetchval("SELECT clock_timestamp()")
            await admin.execute(f"ALTER ROLE {role} PASSWORD 'two'")
            while await older_connections(admin, role, before):
                assert client.put("/data/a", json=3).status_code == 200
    await until_refused(postgres, name, role, "one")


async def rotating(postgres: Postgres, folder: Path) -> tuple[str, str, str, Path]:
    """Make a database and a role with the password `one`, which the server asks for.

    Return their names, the role's URL without a password, and a file that has it.
    """
    name = await create_migrated(postgres)
    role = f"rotating_{name}"
    async with connected(postgres, name) as admin:
        await admin.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD 'one' IN ROLE pg_read_all_data, pg_write_all_data"
        )
        hba = postgres.folder / "data" / "pg_hba.conf"
        hba.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        await admin.fetch("SELECT pg_reload_conf()")
    await until_refused(postgres, name, role, "wrong")
    file = folder / "password"
    file.write_text("one\n")
    return name, role, postgres.database(name).replace("tester", role), file


async def older_connections(admin: asyncpg.Connection, role: str, than: datetime) -> int:
    """Return how many connections of a role were made before a time."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND backend_start < $2"
    found: int = await admin.fetchval(count, role, than)
    return found


async def until_refused(server: Postgres, name: str, role: str, password: str) -> None:
    """Wait until a password is refused: the server reads its rules again in its own time."""
    url = server.database(name).replace("tester", f"{role}:{password}")
    async with asyncio.timeout(30):
        while True:
            try:
                await (await asyncpg.connect(url)).close()
            except asyncpg.InvalidPasswordError:
                return
            await asyncio.sleep(0.02)


async def end_connections(admin: asyncpg.Connection, role: str) -> None:
    """End all connections of a role and wait until they are gone."""
    end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = $1"
    rows = await admin.fetch(end, role)
    assert rows
    assert all(row[0] for row in rows)


BY_THE_POOLER = "SET client_encoding="


async def test_a_pooler_s_sessions_are_not_changed(
    debian: Postgres, pgbouncer: PgBouncer, serve: Serve
) -> None:
    """Nothing is prepared by name or set in sessions that others get next."""
    name = await create_migrated(debian)
    url = pgbouncer.url(name)
    with serve(database_url=url, database_statement_cache=0).client() as client:
        client.put("/data/a", json=1)
        client.patch("/data/a", json=2)
        assert client.get("/data?order=a").status_code == 200
    said = [text for text in statements(debian, name) if not text.startswith(BY_THE_POOLER)]
    assert said
    assert not [text for text in said if text.split()[0] in {"SET", "PREPARE", "LISTEN"}]
