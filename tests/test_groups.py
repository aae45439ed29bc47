"""Groups: who asks while a statement is under way shares the next one."""

import asyncio
import itertools
import re
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import httpx2
import pytest

from conftest import Serve
from credenza import errors
from credenza.app import Service
from credenza.conditions import NONE
from credenza.grouped import PARALLEL, Patch, modified
from credenza.groups import MAX_MEMBERS, MAX_WEIGHT, Groups
from credenza.settings import Settings
from credenza.store import READERS
from credenza.telemetry import Metrics
from credenza.values import LARGE
from credenza.wire import StoredDocument
from databases import blocked, connected, create_migrated, statements
from servers import PATIENCE, Postgres

TURN = 0.02
"""Seconds that a group of these tests takes."""

CLIENTS = 40


class Work:
    """Doubles numbers in groups, and remembers them; 13 fails its group, 4 itself alone."""

    def __init__(
        self,
        parallel: int,
        subject: Callable[[int], Hashable] | None = None,
        weight: Callable[[int], int] | None = None,
    ) -> None:
        self.groups: list[list[int]] = []
        self.keys: list[str] = []
        self.most = self._now = 0
        self.metrics = Metrics()
        series = self.metrics.groups["read"]
        self.queue = Groups(
            self._run, parallel=parallel, series=series, subject=subject, weight=weight
        )

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
    others = [asyncio.create_task(work.queue.join("a", number)) for number in (2, 3, 7)]
    await asyncio.sleep(0)
    assert work.metrics.groups["read"].waiting() == 3
    assert await asyncio.gather(first, *others) == [2, 4, 6, 14]
    assert work.groups == [[1], [2, 3, 7]]
    assert work.metrics.groups["read"].waiting() == 0
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


async def test_heavy_ones_do_not_go_together() -> None:
    """What is too heavy goes with the next group, first, or alone; others may pass it."""
    work = Work(parallel=1, weight=lambda number: number * MAX_WEIGHT // 10)
    first = asyncio.create_task(work.queue.join("a", 1))
    await asyncio.sleep(TURN / 4)
    others = [work.queue.join("a", number) for number in (6, 5, 3, 7, 1, 20, 2)]
    assert await asyncio.gather(first, *others) == [2, 12, 10, 6, 14, 2, 40, 4]
    assert work.groups == [[1], [6, 3, 1], [5, 2], [7], [20]]


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


async def test_of_a_subject_one_is_under_way() -> None:
    """No two of a subject are under way at once, and they go in their order; others pass by."""
    work = Work(parallel=2, subject=lambda number: number % 10)
    first = asyncio.create_task(work.queue.join("a", 11))
    await asyncio.sleep(TURN / 4)
    numbers = [21, 31, 12, 22, 15, 41]
    outcomes = await asyncio.gather(first, *(work.queue.join("a", n) for n in numbers))
    assert outcomes == [2 * number for number in (11, *numbers)]
    assert work.groups[:2] == [[11], [12, 15]]
    assert sorted(work.groups[2:4]) == [[21], [22]]
    assert work.groups[4:] == [[31], [41]]


async def test_a_subject_is_one_of_its_key() -> None:
    """The same subject under another key is another one."""
    work = Work(parallel=2, subject=lambda number: number)
    assert await asyncio.gather(*(work.queue.join(key, 5) for key in "ab")) == [10, 10]
    assert work.most == 2


async def test_who_is_one_too_many_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit of those who wait; the others have their turns, and later there is room."""
    monkeypatch.setattr("credenza.groups.MAX_WAITING", 3)
    work = Work(parallel=1)
    waiting = [asyncio.create_task(work.queue.join("a", number)) for number in range(5)]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert outcomes[:3] == [0, 2, 4]
    assert all(isinstance(outcome, errors.Overloaded) for outcome in outcomes[3:])
    refused = {"reason": "groups"}
    counted = work.metrics.registry.get_sample_value("credenza_requests_refused_total", refused)
    assert counted == len(outcomes[3:]) == 2
    assert await work.queue.join("a", 7) == 14


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
    assert sent <= 3 * PARALLEL


async def created_together(
    serve: Serve, postgres: Postgres, values: list[Any], *changes: str
) -> tuple[list[httpx2.Response], list[Any], int]:
    """Create documents that all wait for one lock.

    Return the answers, what is stored afterwards, and how many statements stored documents.
    """
    name = await create_migrated(postgres)
    running = await asyncio.to_thread(serve, database_url=postgres.database(name))
    limits = httpx2.Limits(max_connections=CLIENTS + 3)
    async with (
        httpx2.AsyncClient(base_url=running.url, limits=limits) as client,
        connected(postgres, name) as connection,
    ):
        (await client.put("/v1/collections/together", json={})).raise_for_status()
        for change in changes:
            await connection.execute(change)
        async with connection.transaction():
            await connection.execute("LOCK TABLE documents IN EXCLUSIVE MODE")
            waiting = [
                asyncio.create_task(client.post("/v1/data/together", json=value))
                for value in values
            ]
            await under_way(client, len(waiting))
        answers = await asyncio.gather(*waiting)
        found = (await client.get("/v1/data/together?limit=100")).json()["items"]
    sent = sum("AS lines (id, data)\n" in text for text in statements(postgres, name))
    return answers, found, sent


async def under_way(client: httpx2.AsyncClient, number: int) -> None:
    """Wait until so many requests are under way."""
    await shown(client, "credenza_requests_in_flight", number)


async def shown(client: httpx2.AsyncClient, series: str, number: int) -> None:
    """Wait until a series has such a value, or a larger one."""
    async with asyncio.timeout(PATIENCE):
        while True:
            text = (await client.get("/metrics")).text
            found = re.search(rf"^{series} (\d+)", text, re.MULTILINE)
            if found and int(found[1]) >= number:
                return
            await asyncio.sleep(0.05)


def reads(server: Postgres, name: str) -> list[str]:
    """Return the statements for documents that a database has received."""
    return [text for text in statements(server, name) if "documents.id = ANY" in text]


Asked = tuple[str, str, dict[str, Any]]
STALE = {"headers": {"If-Match": '"1"'}}


async def written_together(
    serve: Serve,
    postgres: Postgres,
    asked: list[Asked],
    lock: str,
    *changes: str,
    unblocked: int = 0,
    one_group: bool = False,
) -> tuple[list[httpx2.Response], dict[str, Any], list[str]]:
    """Store d0, d1 and so on, and write what is asked for while all documents are locked.

    So many of the requests may be `unblocked`, because they are refused before they write. With
    `one_group` all are puts, and wait together behind groups of others. Return the answers, what is
    stored afterwards by id, and the statements that were sent.
    """
    name = await create_migrated(postgres)
    running = await asyncio.to_thread(serve, database_url=postgres.database(name))
    limits = httpx2.Limits(max_connections=len(asked) + PARALLEL + 3)
    async with (
        httpx2.AsyncClient(base_url=running.url, limits=limits, timeout=PATIENCE) as client,
        connected(postgres, name) as connection,
    ):
        for number in range(CLIENTS):
            await client.put(f"/data/d{number}", json=0)
        for change in changes:
            await connection.execute(change)
        before = len(statements(postgres, name))
        async with connection.transaction():
            await connection.execute(lock)
            ahead = []
            for number in range(PARALLEL if one_group else 0):
                ahead.append(asyncio.create_task(client.put(f"/data/ahead{number}", json=0)))
                await blocked(connection, len(ahead))
            waiting = [
                asyncio.create_task(client.request(method, path, **options))
                for method, path, options in asked
            ]
            await under_way(client, len(waiting) - unblocked)
            if one_group:
                await shown(client, r'credenza_groups_waiting\{kind="put"\}', len(waiting))
        answers = await asyncio.gather(*waiting)
        await asyncio.gather(*ahead)
        sent = statements(postgres, name)[before:]
        items = (await client.get("/data?limit=1000")).json()["items"]
    return answers, {item["id"]: item for item in items}, sent


def groups(sent: list[str]) -> int:
    """Return how many statements wrote groups."""
    return sum("'skipped' END" in text for text in sent)


def alone(sent: list[str]) -> int:
    """Return how many statements wrote a document alone."""
    return sum("WITH written AS" in text for text in sent)


LOCK = "LOCK TABLE documents IN EXCLUSIVE MODE"


async def test_puts_share_commits(serve: Serve, postgres: Postgres) -> None:
    """New ones and others, with and without conditions: each has its own outcome, none is alone."""
    asked: list[Asked] = []
    for number in range(CLIENTS):
        path = f"/data/{'new' if number % 4 == 3 else 'd'}{number}"
        options: dict[str, Any] = {"json": number}
        if number % 4 == 1:
            options["headers"] = {"If-Match": "*" if number % 8 == 1 else '"1", "2"'}
        if number % 4 == 2:
            options["headers"] = {"If-None-Match": "*" if number % 8 == 2 else '"1", "2"'}
        asked.append(("PUT", path, options))
    answers, stored, sent = await written_together(serve, postgres, asked, LOCK)
    for number, answer in enumerate(answers):
        refused = number % 8 in {2, 5}
        expected = 412 if refused else 201 if number % 4 == 3 else 200
        assert answer.status_code == expected, (number, answer.text)
        id_ = asked[number][1].rpartition("/")[2]
        if refused:
            assert answer.json()["current"] == stored[id_]
            assert stored[id_]["data"] == 0
        else:
            assert answer.json() == stored[id_]
            assert stored[id_]["data"] == number
    assert groups(sent) <= CLIENTS / 4  # what is refused is tried a second time
    assert alone(sent) == 0


async def test_patches_share_commits(serve: Serve, postgres: Postgres) -> None:
    """Each has its own outcome; those that can't be are refused alone."""
    asked: list[Asked] = []
    for number in range(CLIENTS):
        path = f"/data/{'none' if number % 4 == 3 else 'd'}{number}"
        options: dict[str, Any] = {"json": {"n": number}}
        if number % 4 == 1:
            options["headers"] = {"If-Match": "*" if number % 8 == 1 else '"1", "2"'}
        if number in {4, 12}:
            options["json"] = {"more": "-" * 100_000}
        asked.append(("PATCH", path, options))
    large = """
        UPDATE documents SET data = jsonb_build_object('much', repeat('-', 2000000))
        WHERE id IN ('d4', 'd12')"""
    answers, stored, sent = await written_together(serve, postgres, asked, LOCK, large, unblocked=2)
    for number, answer in enumerate(answers):
        expected = {3: 404, 5: 412, 7: 404}.get(number % 8, 422 if number in {4, 12} else 200)
        assert answer.status_code == expected, (number, answer.text)
        if expected == 200:
            assert answer.json() == stored[f"d{number}"]
            assert answer.json()["data"] == {"n": number}
        elif expected == 422:
            assert list(stored[f"d{number}"]["data"]) == ["much"]
        elif expected == 412:
            assert stored[f"d{number}"]["data"] == 0
    assert groups(sent) <= 2 * PARALLEL
    assert alone(sent) == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_large_documents_share_no_statement(
    serve: Serve, postgres: Postgres, method: str
) -> None:
    """Together they would take longer than QUERY_TIMEOUT, and none of them would be stored."""
    number = 12
    text = "x" * (MAX_WEIGHT // 2 - 100)
    asked: list[Asked] = [
        (method, "/data" if method == "POST" else f"/data/d{n}", {"json": {"n": text}})
        for n in range(number)
    ]
    answers, stored, sent = await written_together(serve, postgres, asked, LOCK)
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert sum(found["data"] == {"n": text} for found in stored.values()) == number
    assert sum("INSERT INTO documents" in text for text in sent) >= number / 2


@pytest.mark.parametrize(("data", "size"), [(1, LARGE + 1), (LARGE + 1, 1), (1, 1)])
async def test_large_patches_are_made_in_a_thread(data: int, size: int) -> None:
    """Whether the document is large or what is asked for: others are served meanwhile."""
    patch = Patch("a", lambda _: str(threading.get_ident()), size, NONE)
    here = await modified("1" * data, patch) == str(threading.get_ident())
    assert here == (max(data, size) <= LARGE)


async def test_patches_of_one_document_lose_nothing(serve: Serve, postgres: Postgres) -> None:
    """Each is made of what the one before has left."""
    asked: list[Asked] = [("PATCH", "/data/d0", {"json": {f"k{n}": n}}) for n in range(12)]
    answers, stored, sent = await written_together(serve, postgres, asked, LOCK)
    assert {answer.status_code for answer in answers} == {200}
    assert stored["d0"]["data"] == {f"k{n}": n for n in range(12)}
    assert len({answer.json()["version"] for answer in answers}) == 12
    assert (groups(sent), alone(sent)) == (12, 0)


async def test_a_patch_is_made_of_what_is_there_when_it_is_written(
    serve: Serve, postgres: Postgres
) -> None:
    """What another process writes between reading and writing is not lost, nor what it deletes."""
    name = await create_migrated(postgres)
    running = await asyncio.to_thread(serve, database_url=postgres.database(name))
    async with running.async_client() as client, connected(postgres, name) as connection:
        for id_ in ("changed", "deleted"):
            await client.put(f"/data/{id_}", json={"a": 1})
        async with connection.transaction():
            await connection.execute(LOCK)
            patches = [
                asyncio.create_task(client.patch(f"/data/{id_}", json={"b": 2}))
                for id_ in ("changed", "deleted")
            ]
            await blocked(connection, unless=patches[0].done)
            await connection.execute(
                "UPDATE documents SET version = version + 1, data = "
                """CASE WHEN id = 'changed' THEN '{"a": 3}'::jsonb END"""
            )
        changed, deleted = await asyncio.gather(*patches)
        assert (changed.status_code, deleted.status_code) == (200, 404)
        assert changed.json()["data"] == {"a": 3, "b": 2}
        assert (await client.get("/data/changed")).json() == changed.json()


async def test_deletions_share_commits(serve: Serve, postgres: Postgres) -> None:
    """Of what is there and what is not, with and without conditions, as puts do."""
    asked: list[Asked] = []
    for number in range(CLIENTS):
        path = f"/data/{'none' if number % 4 == 3 else 'd'}{number}"
        asked.append(("DELETE", path, STALE if number % 4 == 1 else {}))
    answers, stored, sent = await written_together(serve, postgres, asked, LOCK)
    for number, answer in enumerate(answers):
        expected = {1: 412, 3: 404}.get(number % 4, 204)
        assert answer.status_code == expected, (number, answer.text)
        assert (f"d{number}" in stored) == (expected != 204)
    assert groups(sent) <= 2 * PARALLEL
    assert alone(sent) == 0


async def test_puts_of_one_document_follow_each_other(serve: Serve, postgres: Postgres) -> None:
    """No group has two of them: each gets a version above the one before, the last one stays."""
    asked: list[Asked] = [("PUT", "/data/d0", {"json": number}) for number in range(12)]
    answers, stored, sent = await written_together(serve, postgres, asked, LOCK)
    assert {answer.status_code for answer in answers} == {200}
    versions = {answer.json()["version"]: answer.json()["data"] for answer in answers}
    assert len(versions) == len(asked)
    assert stored["d0"]["data"] == versions[max(versions)]
    assert (groups(sent), alone(sent)) == (12, 0)


async def test_a_document_that_others_hold_holds_nobody_up(
    serve: Serve, postgres: Postgres
) -> None:
    """Whoever writes it waits alone; all others are answered meanwhile."""
    name = await create_migrated(postgres)
    running = await asyncio.to_thread(serve, database_url=postgres.database(name))
    async with running.async_client() as client, connected(postgres, name) as connection:
        for number in range(CLIENTS):
            await client.put(f"/data/d{number}", json=0)
        for method in ("PUT", "PATCH", "DELETE"):
            async with connection.transaction():
                await connection.execute("SELECT FROM documents WHERE id = 'd0' FOR UPDATE")
                held = asyncio.create_task(client.request(method, "/data/d0", json=1))
                others = await asyncio.gather(
                    *(client.request(method, f"/data/d{n}", json=1) for n in range(1, CLIENTS))
                )
                assert {answer.status_code for answer in others} <= {200, 204}
                await blocked(connection, unless=held.done)
            assert (await held).status_code in {200, 204}
        assert (await client.get("/data")).json()["items"] == []


async def test_a_put_that_is_at_fault_fails_alone(serve: Serve, postgres: Postgres) -> None:
    """What PostgreSQL refuses fails, and all who share a statement with it are stored."""
    asked: list[Asked] = [
        ("PUT", f"/data/d{number}", {"json": "bad" if number == 20 else number})
        for number in range(CLIENTS)
    ]
    refuse = "ALTER TABLE documents ADD CHECK (data <> '\"bad\"') NOT VALID"
    answers, stored, sent = await written_together(
        serve, postgres, asked, LOCK, refuse, one_group=True
    )
    for number, answer in enumerate(answers):
        assert answer.status_code == (500 if number == 20 else 200)
        assert stored[f"d{number}"]["data"] == (0 if number == 20 else number)
    assert alone(sent) > CLIENTS / 2


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
    assert groups(statements(postgres, name)) <= CLIENTS + 3
