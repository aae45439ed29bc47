"""Exports: one moment, bounded memory, few at once, and no end that looks like a whole one."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2
import psutil
import pytest

from answers import problem
from conftest import Serve
from credenza.database import EXPORTS
from databases import connected, create_migrated
from servers import Postgres
from service import Running

NDJSON = {"Content-Type": "application/x-ndjson"}
MANY = 3_000
LONG = "x" * 10_000
"""So many of such documents are more than sockets hold between the service and a client."""

SESSIONS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'credenza'
      AND state LIKE 'idle in transaction%'
"""


def fill(client: httpx2.Client, number: int = MANY, text: str = LONG) -> None:
    """Store documents d0000, d0001, …, each with its number."""
    lines = (
        b'{"id":"d%04d","data":{"n":%d,"text":"%s"}}\n' % (place, place, text.encode())
        for place in range(number)
    )
    answer = client.post("/data/_import?view=document", content=lines, headers=NDJSON)
    assert answer.json() == {"taken": number, "written": number}


@pytest.fixture
async def database(postgres: Postgres) -> str:
    """The name of a database that no other test uses."""
    return await create_migrated(postgres)


async def lines_of(parts: AsyncIterator[bytes]) -> list[bytes]:
    """Return the lines of an answer that is read to its end."""
    return b"".join([part async for part in parts]).splitlines()


@asynccontextmanager
async def begun(running: Running, path: str = "/data/_export") -> AsyncIterator[httpx2.Response]:
    """Begin to read an export, of which most is still to come."""
    async with running.async_client(1) as client, client.stream("GET", path) as answer:
        assert answer.status_code == 200
        yield answer


def test_an_export_is_a_list_without_pages(client: httpx2.Client, collection: str) -> None:
    """Filters, orders, selections and views give the same as the pages of a list."""
    path = f"/v1/data/{collection}"
    values = b"".join(
        b'{"id":"%04d","data":{"n":%d,"s":"%s","o":{"k":%d}}}\n' % (n, n % 7, b"ab"[n % 2 :], n)
        for n in range(1_200)
    )
    client.post(f"{path}/_import?view=document", content=values, headers=NDJSON)
    for asked in ("", "n=gte.3", "order=s,n.desc,$id.desc", "n=eq.2&select=o.k&order=o.k.desc"):
        for view in ("data", "document"):
            found: list[Any] = []
            following: str | None = f"{path}?{asked}&view={view}&limit=500"
            while following:
                page = client.get(following).json()
                found += page["items"]
                following = page["next"]
            exported = client.get(f"{path}/_export?{asked}&view={view}").text.splitlines()
            assert [httpx2.Response(200, text=line).json() for line in exported] == found
            assert len(found) > 100


def test_large_documents_keep_their_place(client: httpx2.Client, collection: str) -> None:
    """A document that is read by itself comes in its order, selected and viewed as the others."""
    path = f"/v1/data/{collection}"
    for place, size in enumerate((1, 70_000, 5, 500_000, 65_530)):
        value = {"n": -place, "text": "x" * size}
        assert client.put(f"{path}/{place}", json=value).status_code == 201
    ids, sizes = "43210", (65_530, 500_000, 5, 70_000, 1)
    whole = client.get(f"{path}/_export?order=n&view=document").text.splitlines()
    assert [httpx2.Response(200, text=line).json()["id"] for line in whole] == list(ids)
    bare = client.get(f"{path}/_export?order=n&n=lte.0&select=text").text.splitlines()
    assert bare == [f'{{"text": "{"x" * size}"}}' for size in sizes]


async def test_an_export_shows_one_moment(postgres: Postgres, serve: Serve, database: str) -> None:
    """What is changed, deleted and made while it is under way is not in it."""
    running = await asyncio.to_thread(serve, database_url=postgres.database(database))
    with running.client() as client:
        fill(client)
        client.put("/data/d2999", json={"n": 2999, "text": LONG * 10})  # is read by itself
        before = client.get("/data/_export?select=n").text.splitlines()
        async with begun(running, "/data/_export?select=n,text") as answer:
            parts = answer.aiter_bytes()
            first = await anext(parts)
            assert client.put("/data/d2999", json={"n": "changed"}).status_code == 200
            assert client.delete("/data/d2998").status_code == 204
            assert client.put("/data/d2997a", json={"n": "made"}).status_code == 201
            tag = client.get("/v1/collections/default").headers["etag"]
            gone = client.delete("/v1/collections/default", headers={"If-Match": tag})
            assert gone.status_code == 204
            assert client.get("/data/_export").text == ""
            found = (first + b"".join([part async for part in parts])).splitlines()
    assert [line.partition(b', "text"')[0] + b"}" for line in found] == [
        line.encode() for line in before
    ]


async def test_few_exports_are_under_way_at_once(
    postgres: Postgres, serve: Serve, database: str
) -> None:
    """One more is refused, others are served, also by a pool of one; who has ended makes room."""
    running = await asyncio.to_thread(
        serve, database_url=postgres.database(database), database_pool_size=1
    )
    with running.client() as client:
        fill(client)
        async with begun(running), begun(running):
            assert EXPORTS == 2
            refused = client.get("/data/_export")
            problem(refused, 503, "overloaded")
            assert refused.headers["retry-after"] == "5"
            assert client.put("/data/a", json=1).status_code == 201
            assert len(client.get("/data?limit=10").json()["items"]) == 10
            counted = 'credenza_requests_refused_total{reason="exports"} 1.0'
            assert counted in client.get("/metrics").text
        async with connected(postgres, database) as admin:
            await until_none(admin)
        for _ in range(2 * EXPORTS):
            assert len(client.get("/data/_export").content.splitlines()) == MANY + 1


async def until_none(admin: asyncpg.Connection) -> None:
    """Wait until no export's transaction is open."""
    async with asyncio.timeout(20):
        while await admin.fetch(SESSIONS):  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.02)


async def until_held(admin: asyncpg.Connection, number: int) -> list[asyncpg.Record]:
    """Wait until so many exports wait for their clients; return their sessions."""
    async with asyncio.timeout(20):
        held: list[asyncpg.Record] = []
        while len(held) != number:
            await asyncio.sleep(0.02)
            held = await admin.fetch(SESSIONS)
    return held


async def test_who_does_not_read_on_is_left(
    postgres: Postgres, serve: Serve, database: str
) -> None:
    """After BODY_TIMEOUT the export is over: its transaction, its place, and the answer, broken."""
    running = await asyncio.to_thread(
        serve, database_url=postgres.database(database), body_timeout=2
    )
    async with connected(postgres, database) as admin:
        with running.client() as client:
            fill(client)
            async with begun(running) as one, begun(running) as two:
                await until_held(admin, EXPORTS)
                await until_none(admin)
                assert client.get("/data/_export?$id=eq.d0001").status_code == 200
                for answer in (one, two):
                    with pytest.raises(httpx2.TransportError):
                        await lines_of(answer.aiter_bytes())


async def test_a_lost_database_breaks_the_answer(
    postgres: Postgres, serve: Serve, database: str
) -> None:
    """An export whose connection is lost does not look like a whole one, and the next one works."""
    running = await asyncio.to_thread(serve, database_url=postgres.database(database))
    async with connected(postgres, database) as admin:
        with running.client() as client:
            fill(client)
            async with begun(running) as answer:
                (row,) = await until_held(admin, 1)
                await admin.execute("SELECT pg_terminate_backend($1)", row["pid"])
                with pytest.raises(httpx2.TransportError):
                    await lines_of(answer.aiter_bytes())
            assert len(client.get("/data/_export").content.splitlines()) == MANY


async def test_a_query_that_is_too_slow_is_refused(
    postgres: Postgres, serve: Serve, database: str
) -> None:
    """QUERY_TIMEOUT counts for each piece that is read; before the first one it is a refusal."""
    running = await asyncio.to_thread(
        serve, database_url=postgres.database(database), query_timeout=0.3
    )
    async with connected(postgres, database) as admin:
        with running.client() as client:
            fill(client, 100, "x")
            transaction = admin.transaction()
            await transaction.start()
            await admin.execute("LOCK TABLE documents")
            refused = await asyncio.to_thread(client.get, "/data/_export")
            await transaction.rollback()
            problem(refused, 422, "query-too-expensive")
            async with begun(running) as answer:
                await asyncio.sleep(1)  # a client may take its time
                assert len(await lines_of(answer.aiter_bytes())) == 100


async def test_an_export_under_way_is_finished(
    postgres: Postgres, serve: Serve, database: str
) -> None:
    """A service that ends sends on what it has begun."""
    running = await asyncio.to_thread(serve, database_url=postgres.database(database))
    with running.client() as client:
        fill(client)
    async with begun(running) as answer:
        running.process.terminate()
        assert len(await lines_of(answer.aiter_bytes())) == MANY
    assert await asyncio.to_thread(running.process.wait, 30) == 0


async def test_an_export_that_is_not_read_holds_no_end_up(
    postgres: Postgres, serve: Serve, database: str
) -> None:
    """It is cut off with the other requests under way; its answer is broken."""
    running = await asyncio.to_thread(serve, database_url=postgres.database(database))
    with running.client() as client:
        fill(client)
    async with begun(running) as answer:
        for _ in range(2):
            running.process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.5)
        assert await asyncio.to_thread(running.process.wait, 15) == 0
        with pytest.raises(httpx2.TransportError):
            await lines_of(answer.aiter_bytes())
    cut = [line for line in running.log_lines() if line["event"] == "requests were cut off"]
    assert [line["number"] for line in cut] == [1]


def resident(running: Running) -> int:
    """Return the bytes of memory that the service's process holds."""
    return psutil.Process(running.process.pid).memory_info().rss


def test_memory_is_bounded_by_bytes_not_by_documents(serve: Serve) -> None:
    """100,000 small documents and then 300 MB of large ones, in and out: 60 MB more at the most.

    The large ones come after so many small ones that a number of documents would not bound them.
    """
    running = serve()
    small = b'{"text":"%s"}\n' % (b"y" * 285)
    large = b'"%s"\n' % (b"x" * 1_000_000)
    with running.client() as client:
        client.post("/data/_import", content=small * 1_000, headers=NDJSON)
        client.get("/data/_export")
        before = resident(running)
        peak = before

        def body() -> Iterator[bytes]:
            nonlocal peak
            for part in (*[small * 1_000] * 100, *[large] * 300):
                yield part
                peak = max(peak, resident(running))

        report = client.post("/data/_import", content=body(), headers=NDJSON).json()
        assert report == {"taken": 100_300, "written": 100_300}
        size, checked = 0, time.monotonic()
        with client.stream("GET", "/data/_export") as answer:
            for part in answer.iter_bytes():
                size += len(part)
                if time.monotonic() - checked > 0.01:
                    checked = time.monotonic()
                    peak = max(peak, resident(running))
    assert size > 101_000 * len(small) + 300 * 1_000_000
    assert peak - before < 60_000_000
