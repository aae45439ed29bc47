"""Groups: who asks while a statement is under way shares the next one."""

import asyncio
import itertools
import re
from collections.abc import Sequence

import httpx2

from conftest import Serve
from credenza.groups import MAX_MEMBERS, Groups
from credenza.store import READERS
from databases import connected, create_migrated, statements
from servers import PATIENCE, Postgres

TURN = 0.02
"""Seconds that a group of these tests takes."""

CLIENTS = 40


class Work:
    """Doubles numbers in groups, and remembers them; the number 13 fails the group it is in."""

    def __init__(self, parallel: int) -> None:
        self.groups: list[list[int]] = []
        self.most = self._now = 0
        self.queue = Groups(self._run, parallel=parallel)

    async def _run(self, numbers: list[int]) -> Sequence[int]:
        self.groups.append(numbers)
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(TURN)
        self._now -= 1
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


async def test_the_first_goes_at_once_and_others_share_the_next() -> None:
    """One who is alone waits for nobody; who comes meanwhile goes together, in their order."""
    work = Work(parallel=1)
    first = asyncio.create_task(work.queue.join(1))
    await asyncio.sleep(TURN / 4)
    assert work.groups == [[1]]
    others = [work.queue.join(number) for number in (2, 3, 4)]
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8]
    assert work.groups == [[1], [2, 3, 4]]
    assert await work.queue.join(5) == 10


async def test_groups_are_bounded() -> None:
    """No more are under way, and none has more members, than is allowed; nobody is left out."""
    work = Work(parallel=3)
    numbers = range(100, 100 + 3 * MAX_MEMBERS + 7)
    outcomes = await asyncio.gather(*map(work.queue.join, numbers))
    assert outcomes == [2 * number for number in numbers]
    assert max(map(len, work.groups)) == MAX_MEMBERS
    assert work.most == 3
    assert sorted(itertools.chain(*work.groups)) == list(numbers)


async def test_a_failure_is_that_of_its_group_alone() -> None:
    """All members of a group that fails learn why; the groups before and after do not."""
    work = Work(parallel=1)
    waiting = [asyncio.create_task(work.queue.join(1))]
    await asyncio.sleep(TURN / 4)
    waiting += [asyncio.create_task(work.queue.join(number)) for number in (13, 2)]
    await asyncio.sleep(TURN)
    waiting.append(asyncio.create_task(work.queue.join(3)))
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert (outcomes[0], outcomes[3]) == (2, 6)
    assert [str(outcome) for outcome in outcomes[1:3]] == ["thirteen", "thirteen"]


async def test_who_goes_away_takes_nobody_along() -> None:
    """One who stops waiting is left out of a group that has not begun, and disturbs none."""
    work = Work(parallel=1)
    waiting = [asyncio.create_task(work.queue.join(number)) for number in (1, 2, 3, 4)]
    await asyncio.sleep(TURN / 4)
    waiting[2].cancel()
    await asyncio.sleep(0)
    work_of_others = await asyncio.gather(*waiting[:2], waiting[3])
    assert work_of_others == [2, 4, 8]
    assert all(3 not in group for group in work.groups[1:])


async def test_reads_share_statements(serve: Serve, postgres: Postgres) -> None:
    """Who reads while reads are under way shares a statement, and gets what it asked for.

    Also what is missing, and a document of another collection. A lock holds the first ones up.
    """
    name = await create_migrated(postgres)
    running = await asyncio.to_thread(serve, database_url=postgres.database(name))
    limits = httpx2.Limits(max_connections=CLIENTS + 3)
    async with httpx2.AsyncClient(base_url=running.url, limits=limits) as client:
        for number in range(CLIENTS):
            await client.put(f"/data/d{number}", json=number)
        await client.put("/v1/data/other/d0", json="other")
        paths = [f"/data/d{number}" for number in range(CLIENTS)]
        async with connected(postgres, name) as connection:
            before = len(reads(postgres, name))
            async with connection.transaction():
                await connection.execute("LOCK TABLE documents IN ACCESS EXCLUSIVE MODE")
                waiting = [
                    asyncio.create_task(client.get(path))
                    for path in (*paths, "/data/none", "/v1/data/other/d0")
                ]
                await under_way(client, len(waiting))
            answers = await asyncio.gather(*waiting)
    assert [answer.json()["data"] for answer in answers[:CLIENTS]] == list(range(CLIENTS))
    assert (answers[-2].status_code, answers[-1].json()["data"]) == (404, "other")
    assert len(reads(postgres, name)) - before <= 3 * READERS


async def under_way(client: httpx2.AsyncClient, number: int) -> None:
    """Wait until so many requests are under way."""
    async with asyncio.timeout(PATIENCE):
        while True:
            text = (await client.get("/metrics")).text
            found = re.search(r"^credenza_requests_in_flight (\d+)", text, re.MULTILINE)
            if found and int(found[1]) >= number:
                return
            await asyncio.sleep(0.05)


def reads(server: Postgres, name: str) -> list[str]:
    """Return the statements for documents that a database has received."""
    return [text for text in statements(server, name) if "documents.id = ANY" in text]
