"""Groups: who asks while a statement is under way shares the next one."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2

from conftest import Serve
from credenza.app import Service
from credenza.conditions import NONE
from credenza.documents import WRITERS
from credenza.groups import MAX_MEMBERS, Groups
from credenza.settings import Settings
from credenza.store import READERS
from credenza.wire import StoredDocument
from databases import connected, create_migrated, statements
from servers import PATIENCE, Postgres

TURN = 0.02
"""Seconds that a group of these tests takes."""

CLIENTS = 40

TOGETHER = "/v1/data/together"

HELD_SECONDS = 4.0
"""Less than a statement may wait for a lock: who is answered by then was not held up."""


class Work:
    """Doubles numbers in groups, and remembers them; 13 fails its group, 4 itself alone."""

    def __init__(self, parallel: int) -> None:
        self.groups: list[list[int]] = []
        self.keys: list[str] = []
        self.most = self._now = 0
        self.queue = Groups(self._run, parallel=parallel)

    async def _run(self, key: str, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.groups.append([*numbers])
        self.keys.append(key)
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(TURN)
        self._now -= 1
        if 13 in numbers:
            raise ValueError("thirteen")
        return [ValueError("four") if number == 4 else 2 * number for number in numbers]


async def test_the_first_goes_at_once_and_others_share_the_next() -> None:
    """One who is alone waits for nobody; who comes meanwhile goes together, in their order."""
    work = Work(parallel=1)
    first = asyncio.create_task(work.queue.join("a", 1))
    await asyncio.sleep(TURN / 4)
    assert work.groups == [[1]]
    others = [work.queue.join("a", number) for number in (2, 3, 7)]
    assert await asyncio.gather(first, *others) == [2, 4, 6, 14]
    assert work.groups == [[1], [2, 3, 7]]
    assert await work.queue.join("a", 5) == 10


async def test_groups_are_bounded() -> None:
    """No more are under way, and none has more members, than is allowed; nobody is left out."""
    work = Work(parallel=3)
    numbers = range(100, 100 + 3 * MAX_MEMBERS + 7)
    outcomes = await asyncio.gather(*(work.queue.join("a", number) for number in numbers))
    assert outcomes == [2 * number for number in numbers]
    assert max(map(len, work.groups)) == MAX_MEMBERS
    assert work.most == 3
    assert sorted(itertools.chain(*work.groups)) == list(numbers)


async def test_a_failure_is_that_of_its_group_alone() -> None:
    """All members of a group that fails learn why; the groups before and after do not."""
    work = Work(parallel=1)
    waiting = [asyncio.create_task(work.queue.join("a", 1))]
    await asyncio.sleep(TURN / 4)
    waiting += [asyncio.create_task(work.queue.join("a", number)) for number in (13, 2)]
    await asyncio.sleep(TURN)
    waiting.append(asyncio.create_task(work.queue.join("a", 3)))
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert (outcomes[0], outcomes[3]) == (2, 6)
    assert [str(outcome) for outcome in outcomes[1:3]] == ["thirteen", "thirteen"]


async def test_an_outcome_may_be_a_failure() -> None:
    """One of a group may fail alone; the others have their outcomes."""
    work = Work(parallel=1)
    asked = [asyncio.create_task(work.queue.join("a", number)) for number in (1, 3, 4, 5)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [outcomes[0], outcomes[1], str(outcomes[2]), outcomes[3]] == [2, 6, "four", 10]


async def test_keys_do_not_mix_and_take_turns() -> None:
    """A group has one key; one that many ask for does not shut the others out."""
    work = Work(parallel=1)
    many = [work.queue.join("a", number) for number in range(100, 100 + 3 * MAX_MEMBERS)]
    await asyncio.gather(*many, work.queue.join("b", 7))
    assert work.keys == ["a", "b", "a", "a"]
    assert work.groups[1] == [7]


async def test_who_goes_away_takes_nobody_along() -> None:
    """One who stops waiting is left out of a group that has not begun, and disturbs none."""
    work = Work(parallel=1)
    waiting = [asyncio.create_task(work.queue.join("a", number)) for number in (1, 2, 3, 7)]
    await asyncio.sleep(TURN / 4)
    waiting[2].cancel()
    await asyncio.sleep(0)
    work_of_others = await asyncio.gather(*waiting[:2], waiting[3])
    assert work_of_others == [2, 4, 14]
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


async def test_one_that_is_at_fault_fails_alone(serve: Serve, postgres: Postgres) -> None:
    """What PostgreSQL refuses fails, and all who share a statement with it are stored."""
    refuse = "ALTER TABLE documents ADD CHECK (data <> '\"bad\"') NOT VALID"
    values = ["bad" if number == 20 else number for number in range(CLIENTS)]
    answers, found, sent = await created_together(serve, postgres, values, refuse)
    assert sent > CLIENTS / 2, "those of its group were not stored alone"
    expected = [500 if value == "bad" else 201 for value in values]
    assert [answer.status_code for answer in answers] == expected
    stored = [answer.json() for answer in answers if answer.status_code == 201]
    assert sorted(found, key=str) == sorted(stored, key=str)


async def test_new_documents_share_commits(serve: Serve, postgres: Postgres) -> None:
    """Who creates while creations are under way shares a statement, and gets its own document."""
    answers, found, sent = await created_together(serve, postgres, [*range(CLIENTS)])
    assert [answer.json()["data"] for answer in answers] == list(range(CLIENTS))
    assert sorted(found, key=str) == sorted((answer.json() for answer in answers), key=str)
    assert sent <= 3 * WRITERS


async def created_together(
    serve: Serve, postgres: Postgres, values: list[Any], *changes: str
) -> tuple[list[httpx2.Response], list[Any], int]:
    """Create documents that all wait for one lock.

    Return the answers, what is stored afterwards, and how many statements stored documents.
    """
    async with serving(serve, postgres) as (client, connection, name):
        for change in changes:
            await connection.execute(change)
        async with connection.transaction():
            await connection.execute("LOCK TABLE documents IN EXCLUSIVE MODE")
            waiting = [asyncio.create_task(client.post(TOGETHER, json=value)) for value in values]
            await under_way(client, len(waiting))
        answers = await asyncio.gather(*waiting)
        found = await listed(client)
    sent = sum("AS lines (id, data)\n" in text for text in statements(postgres, name))
    return answers, found, sent


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


async def test_replacements_share_commits(serve: Serve, postgres: Postgres) -> None:
    """Who replaces while others do shares a statement; each gets its own document back."""
    async with serving(serve, postgres) as (client, connection, name):
        await asyncio.gather(*(client.put(f"{TOGETHER}/{n}", json="old") for n in range(0, 40, 2)))
        before = len(puts(postgres, name))
        async with connection.transaction():
            await connection.execute("LOCK TABLE documents IN EXCLUSIVE MODE")
            waiting = [
                asyncio.create_task(client.put(f"{TOGETHER}/{n}", json={"n": n})) for n in range(40)
            ]
            await under_way(client, len(waiting))
        answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [200, 201] * 20
    for number, answer in enumerate(answers):
        assert (answer.json()["id"], answer.json()["data"]) == (str(number), {"n": number})
    assert len(puts(postgres, name)) - before <= 3 * WRITERS


async def test_a_row_that_is_locked_holds_nobody_up(serve: Serve, postgres: Postgres) -> None:
    """Who replaces it waits, alone; all others are answered, also those who come later."""
    async with serving(serve, postgres) as (client, connection, _):
        await asyncio.gather(*(client.put(f"{TOGETHER}/{n}", json=0) for n in range(20)))
        async with connection.transaction():
            await connection.execute("SELECT FROM documents WHERE id = '7' FOR UPDATE")
            waiting = [
                asyncio.create_task(client.put(f"{TOGETHER}/{number}", json=turn))
                for turn in (1, 2)
                for number in range(20)
            ]
            held = [waiting[7], waiting[27]]
            done, _ = await asyncio.wait(set(waiting) - set(held), timeout=HELD_SECONDS)
            assert len(done) == 38
            assert not any(task.done() for task in held)
        answers = await asyncio.gather(*waiting)
    assert {answer.status_code for answer in answers} == {200}


async def test_writes_of_one_document_keep_their_order(postgres: Postgres) -> None:
    """Of many writes of one document by one process, the last that came is the last that stays."""
    name = await create_migrated(postgres)
    settings = Settings.model_validate({"log_level": "error", "secret_key": "s" * 32})
    service = Service(settings, url=postgres.database(name))
    async with service.running(), connected(postgres, name) as connection:

        def put(id_: str, number: int) -> asyncio.Task[tuple[StoredDocument, bool]]:
            return asyncio.create_task(service.documents.put("c", id_, str(number), NONE))

        await put("a", -1)
        async with connection.transaction():
            await connection.execute("LOCK TABLE documents IN EXCLUSIVE MODE")
            ahead = [put("x", 0), put("y", 0)]
            await asyncio.sleep(TURN)  # two groups are under way, and wait
            writes = [put("a", number) for number in range(CLIENTS)]
            await asyncio.sleep(TURN)
        versions = [document.version for document, _ in await asyncio.gather(*writes)]
        stored = await service.documents.read("c", "a")
        await asyncio.gather(*ahead)
    assert versions == sorted(set(versions))
    assert (stored.version, stored.data) == (versions[-1], str(CLIENTS - 1).encode())
    assert len(puts(postgres, name)) <= CLIENTS + 5


async def test_a_replacement_that_is_at_fault_fails_alone(serve: Serve, postgres: Postgres) -> None:
    """What PostgreSQL refuses fails; its neighbours are stored, and so is what comes after."""
    async with serving(serve, postgres) as (client, connection, _):
        await connection.execute("ALTER TABLE documents ADD CHECK (data <> '\"bad\"') NOT VALID")
        values = ["bad" if number % 10 == 3 else number for number in range(CLIENTS)]
        async with connection.transaction():
            await connection.execute("LOCK TABLE documents IN EXCLUSIVE MODE")
            waiting = [
                asyncio.create_task(client.put(f"{TOGETHER}/{number}", json=value))
                for number, value in enumerate(values)
            ]
            await under_way(client, len(waiting))
        answers = await asyncio.gather(*waiting)
        found = {item["id"]: item["data"] for item in await listed(client)}
    expected = [500 if value == "bad" else 201 for value in values]
    assert [answer.status_code for answer in answers] == expected
    assert found == {str(value): value for value in values if value != "bad"}


async def listed(client: httpx2.AsyncClient) -> list[Any]:
    """Return the documents of the collection."""
    items: list[Any] = (await client.get(f"{TOGETHER}?limit=100")).json()["items"]
    return items


@asynccontextmanager
async def serving(
    serve: Serve, postgres: Postgres
) -> AsyncIterator[tuple[httpx2.AsyncClient, asyncpg.Connection, str]]:
    """Serve a database that has the collection; with it comes a connection behind its back."""
    name = await create_migrated(postgres)
    running = await asyncio.to_thread(serve, database_url=postgres.database(name))
    limits = httpx2.Limits(max_connections=CLIENTS + 5)
    async with (
        httpx2.AsyncClient(base_url=running.url, limits=limits, timeout=PATIENCE) as client,
        connected(postgres, name) as connection,
    ):
        (await client.put("/v1/collections/together", json={})).raise_for_status()
        yield client, connection, name


def puts(server: Postgres, name: str) -> list[str]:
    """Return the statements that replaced documents in a database."""
    found = statements(server, name)
    return [text for text in found if "SKIP LOCKED" in text or "$5::text::jsonb" in text]
