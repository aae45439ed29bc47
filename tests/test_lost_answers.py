"""When nobody knows whether a write was committed: 503 that says so, and no cache that is wrong.

The database commits, and the connection is cut before its answer arrives. Then what is read through
the cache, here and in another process, is what a list reads from the database.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import httpx2
import pytest

from conftest import Serve
from databases import blocked, connected, create_migrated
from proxy import Cutter, cutting
from servers import Postgres, Valkey
from service import Running

NDJSON = {"Content-Type": "application/x-ndjson"}
ANY = {"If-Match": "*"}

LOST: dict[str, tuple[bytes, str, str, dict[str, Any]]] = {
    "put": (b"INSERT INTO documents", "PUT", "/v1/data/c/x", {"json": "new"}),
    "replace": (b"UPDATE documents", "PUT", "/v1/data/c/x", {"json": "new", "headers": ANY}),
    "patch": (b"UPDATE documents", "PATCH", "/v1/data/c/x", {"json": "new"}),
    "patch, alone": (b"COMMIT", "PATCH", "/v1/data/c/x", {"json": "new"}),
    "delete": (b"UPDATE documents", "DELETE", "/v1/data/c/x", {}),
    "import": (
        b"INSERT INTO documents",
        "POST",
        "/v1/data/c/_import?view=document&on_conflict=replace",
        {"content": b'{"id":"x","data":"new"}\n', "headers": NDJSON},
    ),
    "delete a collection": (
        b"UPDATE collections",
        "DELETE",
        "/v1/collections/c",
        {"headers": ANY},
    ),
}


@asynccontextmanager
async def two_replicas(
    postgres: Postgres, valkey: Valkey, serve: Serve
) -> AsyncIterator[tuple[str, Cutter, Running, httpx2.AsyncClient, httpx2.AsyncClient]]:
    """Start a service whose way to a database can be cut, and one beside it."""
    name = await create_migrated(postgres)
    url = postgres.database(name)
    async with cutting(postgres.port) as cutter:
        # Without prepared statements each one's text travels, so that the cutter sees it.
        settings = {"redis_url": valkey.url, "database_statement_cache": 0}
        here = await asyncio.to_thread(
            serve, database_url=url.replace(str(postgres.port), str(cutter.port)), **settings
        )
        there = await asyncio.to_thread(serve, database_url=url, **settings)
        async with here.async_client() as one, there.async_client() as two:
            yield name, cutter, here, one, two
        await asyncio.to_thread(here.stop)


@asynccontextmanager
async def held(postgres: Postgres, name: str) -> AsyncIterator[None]:
    """Lock all documents, as another writer does, until somebody waits for one of them."""
    async with connected(postgres, name) as connection, connection.transaction():
        await connection.execute("SELECT FROM documents FOR UPDATE")
        yield
        await blocked(connection)


async def stored(client: httpx2.AsyncClient) -> object:
    """Return the document as a list reads it: from the database."""
    items = (await client.get("/v1/data/c?view=data")).json()["items"]
    return items[0] if items else None


async def cached(client: httpx2.AsyncClient) -> object:
    """Return the document as a read finds it: through the cache."""
    answer = await client.get("/v1/data/c/x?view=data")
    return answer.json() if answer.status_code == 200 else None


@pytest.mark.parametrize("what", LOST)
async def test_a_lost_answer_leaves_no_cache_wrong(
    postgres: Postgres, valkey: Valkey, serve: Serve, what: str
) -> None:
    """The client hears that the outcome is unknown, and every replica reads what is stored."""
    text, method, path, options = LOST[what]
    async with two_replicas(postgres, valkey, serve) as (name, cutter, _, one, two):
        for client in (one, two):
            await client.put("/v1/data/c/x", json="old")
            assert await cached(client) == await cached(client) == "old"
        async with held(postgres, name) if "alone" in what else nullcontext():
            cutter.cut_after(text)
            asked = asyncio.create_task(one.request(method, path, **options))
        answer = await asked
        assert (answer.status_code, answer.json()["outcome"]) == (503, "unknown"), answer.text
        now = await stored(two)
        assert now != "old"
        assert await cached(one) == now
        async with asyncio.timeout(10):
            while await cached(two) != now:  # noqa: ASYNC110 - until the message arrives
                await asyncio.sleep(0.05)
        for _ in range(5):
            assert [await cached(one), await cached(two)] == [now, now]


async def test_a_collection_made_by_a_lost_answer_is_found(
    postgres: Postgres, valkey: Valkey, serve: Serve
) -> None:
    """Who made it died before it told; the next write that is acknowledged is read all the same."""
    async with two_replicas(postgres, valkey, serve) as (_, cutter, here, one, two):
        await one.put("/v1/data/c/x", json="old")
        assert (await one.delete("/v1/collections/c", headers=ANY)).status_code == 204
        assert await cached(one) is await cached(two) is None
        cutter.cut_after(b"INSERT INTO collections", then=here.kill)
        with pytest.raises(httpx2.TransportError):
            pytest.fail((await one.put("/v1/data/c/x", json="lost")).text)
        assert (await two.put("/v1/data/c/x", json="new")).status_code in {200, 201}
        assert await cached(two) == "new"
