"""Change slots under many writers: nobody waits in a circle, and no tag stands for two lists."""

import asyncio
import json
import random
from collections import Counter, defaultdict

import httpx2

from conftest import Serve
from credenza.slots import SLOTS, Slots
from databases import connected, create_migrated
from servers import Postgres

NDJSON = {"Content-Type": "application/x-ndjson"}


def test_writes_at_once_have_slots_of_their_own() -> None:
    """As long as there are any; so no write waits for another one's commit."""

    async def lend(slots: Slots, number: int) -> list[int]:
        lent: list[int] = []
        if number:
            async with slots.lent() as slot:
                lent = [slot, *await lend(slots, number - 1)]
        return lent

    slots = Slots()
    assert sorted(asyncio.run(lend(slots, SLOTS))) == list(range(SLOTS))
    assert set(asyncio.run(lend(slots, 2 * SLOTS))) == set(range(SLOTS))
    first = {asyncio.run(lend(Slots(), 1))[0] for _ in range(200)}
    assert first == set(range(SLOTS)), "all processes prefer the same slot"


async def test_writers_never_wait_for_each_other_in_a_circle(
    postgres: Postgres, serve: Serve
) -> None:
    """Every kind of write, on few documents by two processes at once: PostgreSQL sees no deadlock.

    All is answered, and the writes are spread over the slots.
    """
    name = await create_migrated(postgres)
    url = postgres.database(name)
    services = [await asyncio.to_thread(serve, database_url=url) for _ in range(2)]
    chance = random.Random(7)
    answers: Counter[int] = Counter()
    whole = "/v1/data/few/_import?view=document&on_conflict=replace"
    lines = "".join(json.dumps({"id": f"k{n}", "data": {"n": n}}) + "\n" for n in range(6))

    async def write(client: httpx2.AsyncClient) -> None:
        for _ in range(60):
            path = f"/v1/data/few/k{chance.randrange(6)}"
            kind = chance.randrange(6)
            if kind == 0:
                answer = await client.post("/v1/data/few", json=1)
            elif kind == 1:
                answer = await client.patch(path, json={"n": 1})
            elif kind == 2:
                answer = await client.delete(path)
            elif kind == 3:
                answer = await client.post(whole, content=lines, headers=NDJSON)
            else:
                answer = await client.put(path, json={"n": 2})
            answers[answer.status_code] += 1

    async with services[0].async_client() as one, services[1].async_client() as other:
        await asyncio.gather(*(write(client) for client in (one, other) * 12))
        # Imports go alone: all of them wait for the same rows at once, each with its slot.
        again = (client.post(whole, content=lines, headers=NDJSON) for client in (one, other) * 12)
        answers.update(answer.status_code for answer in await asyncio.gather(*again))
    assert set(answers) <= {200, 201, 204, 404}, answers
    async with connected(postgres, name) as raw:
        slots = await raw.fetch("SELECT slot FROM changes WHERE collection = 'few'")
        deadlocks = await raw.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
    assert deadlocks == 0
    assert len(slots) > 8, "writes at once take the same slots"


async def test_a_tag_stands_for_the_same_list_each_time(postgres: Postgres, serve: Serve) -> None:
    """Two processes write and list at once: whoever is given a tag is given the same bytes."""
    url = postgres.database(await create_migrated(postgres))
    services = [await asyncio.to_thread(serve, database_url=url) for _ in range(2)]
    found: defaultdict[str, set[bytes]] = defaultdict(set)
    done = asyncio.Event()

    async def write(client: httpx2.AsyncClient, number: int) -> None:
        for at in range(150):
            await client.put(f"/data/{number % 4}", json=at)
            if at % 5 == 0:
                await client.delete(f"/data/{number % 4}")

    async def read(client: httpx2.AsyncClient) -> None:
        while not done.is_set():
            answer = await client.get("/data")
            found[answer.headers["etag"]].add(answer.content)

    async with services[0].async_client() as one, services[1].async_client() as other:
        clients = (one, other)
        readers = [asyncio.create_task(read(client)) for client in clients * 3]
        await asyncio.gather(*(write(clients[number % 2], number) for number in range(8)))
        done.set()
        await asyncio.gather(*readers)
    assert len(found) > 50
    assert {tag: len(lists) for tag, lists in found.items() if len(lists) > 1} == {}
