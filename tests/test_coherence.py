"""Promise 2, no stale cache: many readers and writers, three replicas, and a Redis that fails.

A history is recorded at the clients and checked afterwards: no read may return an older version
than one that was acknowledged before it started, at once where the same replica acknowledged it,
and elsewhere within the time that a message may take.
"""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import asyncpg
import pytest

from conftest import Serve
from keepalive import Connection
from proxy import slow
from servers import Postgres, Valkey
from service import Running

KEYS: Final = [f"/data/k{number}" for number in range(4)]
SECONDS: Final = 14.0
TRAVEL_SECONDS: Final = 1.0
"""How far behind other replicas may be: the age of the heartbeat that they rely on."""

RECONNECT_SECONDS: Final = 2.0
"""How long after its end a failure of Redis may keep a writer's message back."""


@dataclass(frozen=True, slots=True)
class Event:
    """A read or an acknowledged write, between two moments of the client's clock."""

    replica: int
    key: str
    version: int
    start: float
    end: float


@dataclass
class History:
    """What clients have seen, and when Redis was disturbed."""

    writes: list[Event] = field(default_factory=list)
    reads: list[Event] = field(default_factory=list)
    faults: list[tuple[float, float]] = field(default_factory=list)
    cuts: list[tuple[int, float, float]] = field(default_factory=list)
    """When a replica was cut off from Redis by its own account: it could not tell of its writes."""

    def deadline(self, write: Event, replica: int) -> float:
        """Return from when on a replica has to show the write."""
        if replica == write.replica:
            return write.end
        own = [(begin, end) for writer, begin, end in self.cuts if writer == write.replica]
        ends = [
            end + RECONNECT_SECONDS
            for begin, end in (*self.faults, *own)
            if begin - TRAVEL_SECONDS <= write.end <= end + RECONNECT_SECONDS
        ]
        return max([write.end + TRAVEL_SECONDS, *ends])

    def stale(self) -> list[tuple[Event, Event]]:
        """Return the reads that were older than they may be, each with a write that shows it."""
        found = []
        for key in {read.key for read in self.reads}:
            writes = [write for write in self.writes if write.key == key]
            for read in (read for read in self.reads if read.key == key):
                newer = (
                    write
                    for write in writes
                    if write.version > read.version
                    and self.deadline(write, read.replica) < read.start
                )
                found += [(read, write) for write in newer][:1]
        return found

    def lag(self) -> float:
        """Return for how long at the most a replica has shown an older version."""
        return max(
            (
                read.start - write.end
                for read in self.reads
                for write in self.writes
                if write.key == read.key and write.version > read.version
            ),
            default=0.0,
        )


def test_the_checker_sees_what_is_stale() -> None:
    """Older than its own replica's last write is stale at once, than another's after a second."""
    write = Event(0, "a", 2, 10.0, 10.1)
    history = History([write])
    history.reads = [Event(0, "a", 1, 10.05, 11.0), Event(1, "a", 1, 11.0, 11.0)]
    assert history.stale() == []
    late = [Event(0, "a", 1, 10.2, 10.3), Event(1, "a", 1, 11.2, 11.3)]
    history.reads += [*late, Event(1, "a", 2, 12.0, 12.0), Event(1, "b", 1, 12.0, 12.0)]
    assert history.stale() == [(read, write) for read in late]
    history.cuts = [(1, 10.0, 12.0)]  # it had nothing to tell
    assert history.stale() == [(read, write) for read in late]
    for faults, cuts in (([(10.0, 12.0)], []), ([], [(0, 10.0, 12.0)])):
        history.faults, history.cuts = faults, cuts
        assert history.stale() == [(late[0], write)]


class Traffic:
    """Clients of one replica, each with a connection of its own."""

    def __init__(self, history: History, replica: int, url: str) -> None:
        self._history = history
        self._replica = replica
        self._url = url
        self._random = random.Random(replica)

    async def write(self, until: float) -> None:
        """Write one document after the other; what is not acknowledged counts for nothing."""
        connection = await Connection.open(self._url)
        while time.monotonic() < until:
            key, start = self._random.choice(KEYS), time.monotonic()
            answer = await connection.ask("PUT", key, b"%d" % self._random.randrange(1000))
            if answer.status in {200, 201}:
                self._note(self._history.writes, key, answer.json["version"], start)
            await asyncio.sleep(self._random.uniform(0, 0.2))
        connection.close()

    async def read(self, until: float) -> None:
        """Read one document after the other."""
        connection = await Connection.open(self._url)
        while time.monotonic() < until:
            key, start = self._random.choice(KEYS), time.monotonic()
            answer = await connection.ask("GET", key)
            assert answer.status == 200, answer.body
            self._note(self._history.reads, key, answer.json["version"], start)
        connection.close()

    def _note(self, events: list[Event], key: str, version: int, start: float) -> None:
        events.append(Event(self._replica, key, version, start, time.monotonic()))


class Nemesis:
    """Disturbs Redis and the replicas at random, always in the same order."""

    def __init__(self, history: History, valkey: Valkey, services: list[Running]) -> None:
        self._history = history
        self._valkey = valkey
        self._services = services
        self._random = random.Random(42)

    async def work(self, until: float) -> None:
        """Disturb again and again."""
        faults: list[Callable[[], float]] = [
            self._freeze,
            self._cut("pubsub"),
            self._flush,
            self._restart,
            self._cut("normal"),
            self._stop_a_replica,
        ]
        while time.monotonic() < until - RECONNECT_SECONDS:
            for fault in faults:
                await asyncio.sleep(self._random.uniform(0.2, 0.8))
                begin = time.monotonic()
                await asyncio.to_thread(fault)
                self._history.faults.append((begin, time.monotonic()))

    def _freeze(self) -> float:
        self._valkey.pause()
        time.sleep(self._random.choice([0.1, 0.5, 1.5]))
        self._valkey.resume()
        return 0

    def _restart(self) -> float:
        self._valkey.kill()
        self._valkey.start()
        return 0

    def _flush(self) -> float:
        self._valkey.client().flushall()
        return 0

    def _cut(self, kind: str) -> Callable[[], float]:
        def cut() -> float:
            self._valkey.client().client_kill_filter(_type=kind, skipme=True)
            return 0

        return cut

    def _stop_a_replica(self) -> float:
        process = self._random.choice(self._services).process
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.3)
        process.send_signal(signal.SIGCONT)
        return 0


async def database(postgres: Postgres, name: str) -> str:
    """Make a database and return its URL."""
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return postgres.database(name)


@pytest.mark.parametrize("disturbed", [False, True], ids=["calm", "disturbed"])
async def test_no_replica_returns_what_is_older_than_acknowledged(
    postgres: Postgres,
    valkey: Valkey,
    serve: Serve,
    disturbed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The history of three replicas has no stale read, over a network that is slow at random."""
    url = await database(postgres, f"coherence_{disturbed}".lower())
    history = History()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(slow(postgres.port))
        settings = {"database_url": url.replace(str(postgres.port), str(port))}
        services = []
        for _ in range(3):
            port = await stack.enter_async_context(slow(valkey.port))
            settings["redis_url"] = valkey.url.replace(str(valkey.port), str(port))
            services.append(await asyncio.to_thread(serve, **settings))
        async with services[0].async_client() as client:
            for key in KEYS:
                await client.put(key, json=0)
        until = time.monotonic() + (SECONDS if disturbed else SECONDS / 2)
        traffic = [Traffic(history, n, service.url) for n, service in enumerate(services)]
        jobs = [each.write(until) for each in traffic for _ in range(4)]
        jobs += [each.read(until) for each in traffic for _ in range(4)]
        if disturbed:
            jobs.append(Nemesis(history, valkey, services).work(until))
        await asyncio.gather(*jobs)
    sys.stdout.write(
        f"{len(history.reads)} reads, {len(history.writes)} writes, {len(history.faults)} faults; "
        f"the longest lag was {history.lag():.3f} s\n"
    )
    assert len(history.writes) > 50
    assert len(history.reads) > 300
    assert len(history.faults) >= (6 if disturbed else 0)
    history.cuts = [cut for number, service in enumerate(services) for cut in cuts(number, service)]
    assert history.stale() == []


def cuts(replica: int, service: Running) -> Iterator[tuple[int, float, float]]:
    """Yield when a replica was cut off from Redis, by its log: commands fail on a busy machine."""
    began = None
    for line in service.log_lines():
        moment = datetime.fromisoformat(line["timestamp"]).timestamp()
        moment -= time.time() - time.monotonic()
        if line["event"] == "no connection to Redis":
            began = moment
        elif line["event"] == "following Redis" and began is not None:
            yield replica, began, moment
            began = None
    if began is not None:
        yield replica, began, time.monotonic()


def outcomes(service: Running) -> list[str | None]:
    """Return how the cache answered each request for a document, from the log."""
    return [
        line["cache"]
        for line in service.log_lines()
        if line["event"] == "request" and line["route"] == "/data/{id}"
    ]


async def test_many_misses_of_one_document_are_one_statement(
    postgres: Postgres, valkey: Valkey, serve: Serve
) -> None:
    """200 clients ask for a document that no cache has: PostgreSQL sees one SELECT of it."""
    name = "single_flight"
    url = await database(postgres, name)
    writer, reader = (serve(database_url=url, redis_url=valkey.url) for _ in range(2))
    async with writer.async_client() as client:
        await client.put("/data/a", json=1)
    async with reader.async_client(200) as client:
        await asyncio.gather(*(client.get("/health/live") for _ in range(200)))  # connect
        before = selects(postgres, name)
        answers = await asyncio.gather(*(client.get("/data/a") for _ in range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert selects(postgres, name) - before == 1


def selects(postgres: Postgres, name: str) -> int:
    """Return how often a document was looked up, from PostgreSQL's own log."""
    return sum(
        f"] {name} " in line and "execute" in line and "documents.id = ANY ($2" in line
        for line in postgres.log().replace("\n\t", " ").splitlines()
    )


@pytest.mark.parametrize("when", ["at start", "later"])
async def test_without_redis_every_answer_is_right(
    postgres: Postgres, valkey: Valkey, serve: Serve, when: str
) -> None:
    """Down at start or later: every request is answered, health says so, and it comes back."""
    url = await database(postgres, "redis_down_" + when.replace(" ", "_"))
    if when == "at start":
        valkey.kill()
    service = serve(database_url=url, redis_url=valkey.url)
    if when == "later":
        valkey.kill()
    async with service.async_client() as client:
        for number in range(50):
            put = await client.put("/data/a", json=number)
            assert put.status_code in {200, 201}
            assert (await client.get("/data/a")).json() == put.json()
        health = (await client.get("/health")).json()
        assert (health["status"], health["checks"]["cache"]["status"]) == ("degraded", "degraded")
        assert (await client.get("/health/ready")).status_code == 200
        valkey.start()
        async with asyncio.timeout(20):
            while (await client.get("/health")).json()["status"] != "ok":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await client.get("/data/a")
        assert "hit" in (await client.get("/data/a")).headers["cache-status"]
    assert "bypass" in outcomes(service)
