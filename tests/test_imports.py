"""Imports: one chunk is stored while the next is read, and that changes no promise."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx2
import pytest

from answers import problem
from conftest import Serve
from credenza.app import Service
from credenza.settings import Settings
from credenza.transfer import Plan
from databases import blocked, connected, create_migrated
from keepalive import Connection
from servers import Postgres, Valkey
from service import Running

NDJSON = {"Content-Type": "application/x-ndjson"}
WHOLE = "/data/_import?view=document"
REPLACING = f"{WHOLE}&on_conflict=replace"


def whole(id_: str, data: str = '"new"', rest: str = "") -> bytes:
    """Return a whole document as a line; `rest` is what stands behind."""
    return f'{{"id":"{id_}","data":{data}{rest}}}\n'.encode()


def test_the_first_bad_chunk_is_the_one_that_is_told(
    client: httpx2.Client, collection: str
) -> None:
    """Where a chunk meets an id that exists and the next one has a bad line, the first counts."""
    path = f"/v1/data/{collection}"
    client.put(f"{path}/n0100", json="old")
    lines = [whole(f"n{number:04}") for number in range(1_200)]
    lines[700] = b"[1\n"
    answer = client.post(f"{path}/_import?view=document", content=b"".join(lines), headers=NDJSON)
    said = problem(answer, 422, "import-failed")
    assert [fault["line"] for fault in said["errors"]] == [101]
    assert (said["taken"], said["written"], said["line"]) == (0, 0, 1)
    assert len(client.get(path).json()["items"]) == 1
    skipping = f"{path}/_import?view=document&on_conflict=skip"
    said = client.post(skipping, content=b"".join(lines), headers=NDJSON).json()
    assert [fault["line"] for fault in said["errors"]] == [701]
    assert (said["taken"], said["written"], said["line"]) == (500, 499, 501)
    assert len(client.get(f"{path}?limit=1000").json()["items"]) == 500


def test_lines_of_all_kinds_stay_apart(client: httpx2.Client, collection: str) -> None:
    """Blank lines, times of creation here and there, and escapes of what separates them inside."""
    path = f"/v1/data/{collection}"
    when = ',"created_at":"2001-02-03T04:05:06.000007Z"'
    lines = (
        b"\n" + whole("b", '"\\u001e"', when) + b" \r\n" + whole("a", "[1, 2]") + whole("c", '""')
    )
    answer = client.post(f"{path}/_import?view=document", content=lines, headers=NDJSON)
    assert answer.json() == {"taken": 5, "written": 3}
    items = client.get(path).json()["items"]
    assert [(item["id"], item["data"]) for item in items] == [
        *(("a", [1, 2]), ("b", "\x1e"), ("c", "")),
    ]
    assert items[1]["created_at"] == "2001-02-03T04:05:06.000007Z"
    assert items[0]["created_at"] == items[0]["updated_at"] == items[2]["updated_at"]
    raw = client.post(f"{path}/_import", content=b'"\x1e"\n', headers=NDJSON)
    assert problem(raw, 422, "import-failed")["errors"][0]["code"] == "malformed-json"


BODY = 1024 * 1024
LONGEST_ID = "i" * 128
LONG = {
    "with spaces": [b"[" + b"1," * 400_000 + b"1]"],
    "as long as a body": [b'"' + b"x" * (BODY - 2) + b'"'],
    "made by two patches": [
        b'{"%c":"%b"}' % (key, b"x" * (BODY - size)) for key, size in ((b"a", 8), (b"b", 10))
    ],
    "with numbers": [b"[" + b"1e998," * 2095 + b"1e54]"],
}
"""Bodies of PATCH that lead to values which are longer when they are given back."""


@pytest.mark.parametrize("patches", LONG.values(), ids=LONG)
@pytest.mark.parametrize("view", ["data", "document"])
def test_what_comes_out_goes_in_again(
    client: httpx2.Client, collection: str, patches: list[bytes], view: str
) -> None:
    """Each document that can be stored is exported as a line that an import takes."""
    path = f"/v1/data/{collection}"
    client.put(f"{path}/{LONGEST_ID}", json={})
    for patch in patches:
        assert client.patch(f"{path}/{LONGEST_ID}", content=patch).status_code == 200
    exported = client.get(f"{path}/_export?view={view}").content
    copy = f"{path}-copy"
    answer = client.post(f"{copy}/_import?view={view}", content=exported, headers=NDJSON)
    assert answer.json() == {"taken": 1, "written": 1}
    assert client.get(f"{copy}/_export").content == client.get(f"{path}/_export").content


def test_the_longest_value_fills_its_limit(client: httpx2.Client, collection: str) -> None:
    """A value that is given back with one byte more than twice a body's limit is refused."""
    path = f"/v1/data/{collection}/{LONGEST_ID}"
    [longest] = LONG["with numbers"]
    found = client.put(f"{path}?view=data", content=longest).content
    assert len(found) == 2 * BODY
    longer = client.put(path, content=longest.replace(b"54]", b"55]"))
    assert problem(longer, 422, "unrepresentable-json")["errors"][0]["pointer"] == ""


def test_a_line_has_a_limit(client: httpx2.Client, collection: str) -> None:
    """An import may be longer than a line; a line is as long as the longest of an export."""
    path = f"/v1/data/{collection}"
    large = b'"' + b"x" * (2 * BODY - 2) + b'"\n'
    fine = client.post(f"{path}/_import", content=large * 3, headers=NDJSON)
    assert fine.json() == {"taken": 3, "written": 3}
    client.put(f"{path}/{LONGEST_ID}", json=1)
    line = client.get(f"{path}/_export?view=document&$id=eq.{LONGEST_ID}").content
    limit = 2 * BODY + len(line) - len(b"1\n") + len("9" * 19) - len("9" * 16)
    long = b'"' + b"x" * (limit - 2) + b'"'
    for content, detail in (
        (long, f"Written out, the value has more than {2 * BODY:,} bytes."),
        (long + b" ", f"Line 2 has more than {limit:,} bytes."),
    ):
        refused = client.post(f"{path}/_import", content=b"1\n" + content, headers=NDJSON)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["detail"] == detail


@pytest.mark.parametrize(
    "moment", ["9999-12-31T23:59:59.999999-10:00", "0001-01-01T00:00:00+10:00"]
)
def test_a_time_that_utc_cannot_have(client: httpx2.Client, collection: str, moment: str) -> None:
    """It is a fault of its line; the chunks before it are stored."""
    lines = [whole(f"n{number:04}") for number in range(600)]
    lines[550] = whole("n0550", rest=f',"created_at":"{moment}"')
    path = f"/v1/data/{collection}/_import?view=document"
    said = problem(client.post(path, content=b"".join(lines), headers=NDJSON), 422, "import-failed")
    assert [(fault["line"], fault["code"]) for fault in said["errors"]] == [(551, "unprocessable")]
    assert (said["taken"], said["written"]) == (500, 500)


def test_each_fault_of_a_line_has_one_form(client: httpx2.Client, collection: str) -> None:
    """Whatever is wrong with a line, its number, a code of the closed list and words are told."""
    path = f"/v1/data/{collection}"
    client.put(f"{path}/old", json=1)
    long = whole("long", '"' + "x" * 3 * BODY + '"')
    for lines, number, code in (
        (whole("a") + whole("old"), 2, "precondition-failed"),
        (whole("a") + whole("b") + whole("a"), 3, "unprocessable"),
        (whole("a") + long, 2, "payload-too-large"),
        (whole("a") + whole("_"), 2, "invalid-id"),
        (whole("a") + whole("b", "["), 2, "malformed-json"),
        (whole("a") + b"1\n", 2, "unprocessable"),
        (whole("a") + whole("b", '"\\u0000"'), 2, "unrepresentable-json"),
    ):
        answer = client.post(f"{path}/_import?view=document", content=lines, headers=NDJSON)
        [fault] = problem(answer, 422, "import-failed")["errors"]
        assert (fault["line"], fault["code"]) == (number, code)
        assert fault["detail"]
    assert fault["errors"][0]["pointer"] == "/data"


@pytest.mark.parametrize(
    "parameters",
    [
        *("on_conflict=skip&on_conflict=error", "on_conflicts=replace", "view=data&view=data"),
        *("limit=1", "on_conflict=", "on_conflict=none", "view=all", "select=a", "a=eq.1"),
    ],
)
def test_parameters_that_an_import_has_not(
    client: httpx2.Client, collection: str, parameters: str
) -> None:
    """What is unknown or given twice is refused, and nothing is stored."""
    path = f"/v1/data/{collection}"
    answer = client.post(f"{path}/_import?{parameters}", content=b"1\n", headers=NDJSON)
    problem(answer, 400, "invalid-query")
    assert client.get(path).json()["items"] == []


@pytest.fixture
async def database(postgres: Postgres) -> str:
    """The name of a database that no other test uses."""
    return await create_migrated(postgres)


async def test_caches_hear_of_what_was_replaced(
    postgres: Postgres, valkey: Valkey, serve: Serve, database: str
) -> None:
    """After each answer: here at once, elsewhere within a second; deleted ones come back too."""
    settings = {"database_url": postgres.database(database), "redis_url": valkey.url}
    here, there = [await asyncio.to_thread(serve, **settings) for _ in range(2)]
    with here.client() as one, there.client() as two:
        for id_ in ("kept", "gone"):
            one.put(f"/data/{id_}", json="old")
        one.delete("/data/gone")
        for client in (one, two):
            for _ in range(2):
                assert client.get("/data/kept").json()["data"] == "old"
                assert client.get("/data/gone").status_code == 404
        lines = whole("gone") + whole("new")
        assert one.post(WHOLE, content=lines, headers=NDJSON).json()["written"] == 2
        assert [one.get(f"/data/{id_}").status_code for id_ in ("gone", "new")] == [200, 200]
        lines = whole("kept") + whole("newer")
        assert one.post(REPLACING, content=lines, headers=NDJSON).json()["written"] == 2
        assert one.get("/data/kept").json()["data"] == "new"
        async with asyncio.timeout(1):
            for id_ in ("kept", "gone"):
                while two.get(f"/data/{id_}?view=data").text != '"new"':  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


@pytest.fixture
async def admin(postgres: Postgres, database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection behind the service's back."""
    async with connected(postgres, database) as connection:
        yield connection


async def test_a_lost_connection_leaves_the_outcome_unknown(
    postgres: Postgres, serve: Serve, database: str, admin: asyncpg.Connection
) -> None:
    """What was taken before it is told, and so is that nobody knows about the chunk."""
    running = await asyncio.to_thread(serve, database_url=postgres.database(database))
    lines = b"".join(whole(f"n{number:04}") for number in range(700))
    async with running.async_client(1) as client:
        await client.put("/data/n0600", json="old")
        async with connected(postgres, database) as holder, holder.transaction():
            await holder.execute("SELECT 1 FROM documents WHERE id = 'n0600' FOR UPDATE")
            answer = asyncio.create_task(client.post(REPLACING, content=lines, headers=NDJSON))
            await blocked(admin, unless=answer.done)
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            said = problem(await answer, 503, "unavailable")
        assert said["outcome"] == "unknown"
        assert (said["taken"], said["written"], said["line"]) == (500, 500, 501)


async def test_a_source_that_fails_leaves_whole_chunks(
    postgres: Postgres, database: str, admin: asyncpg.Connection
) -> None:
    """A file that cannot be read on ends an import after the chunk that is being stored."""
    service = Service(Settings(), url=postgres.database(database))
    failed = asyncio.Event()

    async def lines() -> AsyncIterator[list[bytes]]:
        yield [b"1"] * 500
        await blocked(admin)
        failed.set()
        raise OSError("it is broken")

    async with service.running(), connected(postgres, database) as holder:
        async with holder.transaction():
            await holder.execute("LOCK TABLE documents")
            importing = asyncio.create_task(service.imports.run(Plan("default"), lines()))
            await failed.wait()
            ended, _ = await asyncio.wait([importing], timeout=0.2)
            assert not ended
        with pytest.raises(OSError, match="it is broken"):
            await importing
        assert await count(admin) == 500


async def test_a_chunk_that_waits_too_long_is_given_up(
    postgres: Postgres, serve: Serve, database: str, admin: asyncpg.Connection
) -> None:
    """It is rolled back, the answer tells where to resume, and the next try passes."""
    settings = {"database_url": postgres.database(database), "query_timeout": 0.5}
    running = await asyncio.to_thread(serve, **settings)
    lines = b"".join(whole(f"n{number:04}") for number in range(700))
    async with running.async_client(1) as client:
        await client.put("/data/n0600", json="old")
        async with admin.transaction():
            await admin.execute("SELECT 1 FROM documents WHERE id = 'n0600' FOR UPDATE")
            refused = await client.post(REPLACING, content=lines, headers=NDJSON)
        said = problem(refused, 503, "unavailable")
        assert "outcome" not in said
        assert (said["taken"], said["line"]) == (500, 501)
        rest = b"\n" * 500 + b"".join(lines.splitlines(keepends=True)[500:])
        again = await client.post(REPLACING, content=rest, headers=NDJSON)
        assert again.json() == {"taken": 700, "written": 200}


async def test_who_goes_away_leaves_whole_chunks(
    postgres: Postgres, serve: Serve, database: str, admin: asyncpg.Connection
) -> None:
    """A client that ends in the middle has stored all chunks that were full, and no part of one."""
    running: Running = await asyncio.to_thread(serve, database_url=postgres.database(database))
    head = (
        b"POST /data/_import HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n"
    )
    for size in (1_700, 300):
        connection = await Connection.open(running.url)
        connection.send(head + b"12345\n" * size)
        async with asyncio.timeout(20):
            while await count(admin) < 1_500:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.02)
        connection.close()
    await asyncio.sleep(0.5)
    assert await count(admin) == 1_500
    with running.client() as client:
        assert client.post("/data/_import", content=b"1\n", headers=NDJSON).status_code == 200


async def count(admin: asyncpg.Connection) -> int:
    """Return how many documents are stored."""
    number: int = await admin.fetchval("SELECT count(*) FROM documents")
    return number
