"""Pages that a process holds itself: what they cost, and that no write leaves an old one behind."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from conftest import Serve
from credenza.cache import Key
from databases import create_migrated, statements
from servers import Postgres, Valkey
from service import Running
from test_cache import NEW, Replica, replicas, until

NDJSON = {"Content-Type": "application/x-ndjson"}
TRAVEL_SECONDS = 1.0
"""How far behind other processes may be."""


@pytest.fixture
async def pair(
    postgres: Postgres, valkey: Valkey, serve: Serve
) -> AsyncIterator[tuple[str, list[httpx2.AsyncClient]]]:
    """Two services on one database and one Valkey; the database's name, and a client of each."""
    name = await create_migrated(postgres)
    settings = {"database_url": postgres.database(name), "redis_url": valkey.url}
    services: list[Running] = [await asyncio.to_thread(serve, **settings) for _ in range(2)]
    async with services[0].async_client() as one, services[1].async_client() as other:
        yield name, [one, other]


async def test_a_held_page_costs_no_statement(
    pair: tuple[str, list[httpx2.AsyncClient]], postgres: Postgres
) -> None:
    """Neither its bytes nor a 304, nor the 304 of any other page of an unchanged collection."""
    name, (client, _) = pair
    for id_ in "abc":
        await client.put(f"/data/{id_}", json=1)
    first = await client.get("/data?limit=2")
    assert first.headers["cache-status"] == "credenza; fwd=uri-miss"
    second = await client.get(first.json()["next"])
    before = len(statements(postgres, name))
    again = await client.get("/data?limit=2")
    assert (again.status_code, again.content) == (200, first.content)
    kept = {"etag", "cache-control", "link", "content-type", "content-length"}
    assert {key: again.headers[key] for key in kept} == {key: first.headers[key] for key in kept}
    assert again.headers["cache-status"].startswith("credenza; hit; ttl=")
    for page, path in ((first, "/data?limit=2"), (second, first.json()["next"])):
        answer = await client.get(path, headers={"If-None-Match": page.headers["etag"]})
        assert answer.status_code == 304
        assert answer.headers["cache-status"].startswith("credenza; hit; ttl=")
    assert statements(postgres, name)[before:] == []
    metrics = (await client.get("/metrics")).text
    assert "credenza_cache_list_bytes 0.0" not in metrics


Write = Callable[[httpx2.AsyncClient], Any]
WRITES: dict[str, Write] = {
    "POST": lambda client: client.post("/data", json=2),
    "PUT": lambda client: client.put("/data/b", json=2),
    "PATCH": lambda client: client.patch("/data/a", json={"n": 2}),
    "DELETE": lambda client: client.delete("/data/a"),
    "import": lambda client: client.post("/data/_import", content=b"2\n3", headers=NDJSON),
    "import of whole ones": lambda client: client.post(
        "/data/_import?view=document&on_conflict=replace",
        content=json.dumps({"id": "a", "data": 2}),
        headers=NDJSON,
    ),
    "DELETE of all": lambda client: client.delete(
        "/v1/collections/default", headers={"If-Match": "*"}
    ),
}


@pytest.mark.parametrize("kind", WRITES)
async def test_a_write_is_in_all_lists(
    pair: tuple[str, list[httpx2.AsyncClient]], kind: str
) -> None:
    """At once where it was acknowledged, within the time of a message in the other process."""
    writer, other = pair[1]
    await writer.put("/data/a", json={"n": 1})
    for client in (writer, other):
        await client.get("/data")
        assert "hit" in (await client.get("/data")).headers["cache-status"]
    old = (await writer.get("/data")).content
    (await WRITES[kind](writer)).raise_for_status()
    acknowledged = time.monotonic()
    new = (await writer.get("/data")).content
    assert new != old
    while time.monotonic() < acknowledged + TRAVEL_SECONDS:
        if (await other.get("/data")).content == new:
            return
    assert (await other.get("/data")).content == new


async def test_no_list_is_older_than_what_was_acknowledged(
    pair: tuple[str, list[httpx2.AsyncClient]],
) -> None:
    """Many write and read by both processes at once; each list has what its process had taken."""
    acknowledged: list[list[tuple[float, str]]] = [[], []]
    clients = pair[1]
    await clients[0].put("/v1/collections/busy", json={})
    done = time.monotonic() + 5
    read = 0

    async def write(replica: int) -> None:
        while time.monotonic() < done:
            answer = await clients[replica].post("/v1/data/busy", json=1)
            acknowledged[replica].append((time.monotonic(), answer.json()["id"]))
            await asyncio.sleep(0.02)

    async def poll(replica: int) -> None:
        nonlocal read
        known = ""
        listed: set[str] = set()
        while time.monotonic() < done:
            start = time.monotonic()
            path = "/v1/data/busy?order=$id.desc&limit=1000"
            answer = await clients[replica].get(path, headers={"If-None-Match": known})
            if answer.status_code == 200:
                known = answer.headers["etag"]
                listed = {item["id"] for item in answer.json()["items"]}
            for of, writes in enumerate(acknowledged):
                due = start - (0 if of == replica else TRAVEL_SECONDS)
                missing = {id_ for moment, id_ in writes if moment < due} - listed
                assert not missing, (replica, of, answer.status_code, missing)
            read += 1
            await asyncio.sleep(0)

    await asyncio.gather(*(work(n) for n in (0, 1) for work in (write, write, poll, poll)))
    assert read > 100
    assert min(map(len, acknowledged)) > 50


# What is put back by who was overtaken


def held(replica: Replica, collection: str) -> object:
    """Return what a replica holds of a collection and would serve."""
    shelf = replica.cache.shelf(collection)
    found = None if shelf is None else replica.cache.kept(shelf, "page")
    return None if found is None else found[0]


def keep(replica: Replica, collection: str) -> Callable[[], None]:
    """Begin to read a page now; what is returned keeps it."""
    shelf = replica.cache.shelf(collection)
    assert shelf is not None
    return lambda: replica.cache.keep(shelf, "page", "old", 10)


async def test_a_page_that_a_write_has_overtaken_is_not_kept(
    valkey: Valkey, collection: str
) -> None:
    """Read before the write and put back after it, here or there: nobody sees it."""
    key = Key(collection, 1, "a")
    async with replicas(valkey, 2) as (one, two):
        writes: tuple[Callable[[], Awaitable[None]], ...] = (
            lambda: two.cache.wrote(key, NEW),
            lambda: two.cache.touched(collection),
            lambda: two.cache.forget(key),
        )
        for write in writes:
            late = [keep(replica, collection) for replica in (one, two)]
            for replica in (one, two):
                keep(replica, collection)()
                assert held(replica, collection) == "old"
            await write()
            assert held(two, collection) is None
            await until(lambda: held(one, collection) is None)
            for put_back in late:
                put_back()
            assert held(one, collection) is held(two, collection) is None
            others = keep(one, f"{collection}x")
            await write()
            others()
            assert held(one, f"{collection}x") == "old"


async def test_nothing_is_kept_while_a_write_is_in_doubt(
    valkey: Valkey, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still be committed, without another word: until then lists are read anew."""
    monkeypatch.setattr("credenza.cache.coherent.SETTLE_SECONDS", -4.0)
    async with replicas(valkey, 2) as (one, two):
        for replica in (one, two):
            keep(replica, collection)()
        one.cache.uncertain(Key(collection, 0, "a"))
        assert one.cache.shelf(collection) is None
        await until(lambda: held(two, collection) is None)
        assert one.cache.shelf(f"{collection}x") is not None
        await until(lambda: one.cache.shelf(collection) is not None)
        assert held(one, collection) is None


async def test_nothing_is_held_beyond_the_connection(valkey: Valkey, collection: str) -> None:
    """Messages are missed when it ends: what was held, and was about to be, is gone."""
    async with replicas(valkey, 1) as (one,):
        late = keep(one, collection)
        keep(one, collection)()
        valkey.client().client_kill_filter(_type="pubsub", skipme=True)
        await until(lambda: one.cache.shelf(collection) is None)
        await until(lambda: one.cache.shelf(collection) is not None)
        late()
        assert held(one, collection) is None


async def test_what_is_held_of_lists_is_bounded(valkey: Valkey, collection: str) -> None:
    """In bytes: what was not asked for longest leaves first; and in time, as documents are."""
    async with replicas(valkey, 1, near_cache_bytes=800_000) as (one,):
        shelf = one.cache.shelf(collection)
        assert shelf is not None
        for number in range(30):
            one.cache.keep(shelf, number, number, 9_000)
            assert one.cache.kept(shelf, 0) is not None
        assert 50_000 < one.value("credenza_cache_list_bytes") <= 100_000
        assert one.cache.kept(shelf, 1) is None
        assert one.cache.kept(shelf, 29) is not None
        one.cache.keep(shelf, "huge", "huge", 100_000)
        assert one.cache.kept(shelf, "huge") is None
        one.cache.keep(shelf, "short", "short", 10, 0.05)
        await until(lambda: one.cache.kept(shelf, "short") is None)
        await one.cache.touched(collection)
        assert one.value("credenza_cache_list_bytes") == 0
