"""A small, bounded load on the service: half of the clients keep their connection, half do not.

Each client writes and reads a document of its own. A request is lost where its answer is not whole,
or not 200 or 201. Nothing is repeated, so that nothing is hidden.
"""

import asyncio
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Self

from keepalive import LOST, Answer, Connection
from ledger import History, number_of, value

CLIENTS: Final = 12
PAUSE: Final = 0.02
"""Seconds between two requests of a client."""
PATIENCE: Final = 15.0
"""Seconds after which a request without an answer is lost."""

_connections = count()


def _source() -> str:
    """Return an address on loopback for a new connection, each time another one.

    They stand for clients of many machines. From one address alone, a port that is used again
    within minutes would meet what the node's kernel remembers of its last connection, which may
    lead to a pod that is gone.
    """
    number = next(_connections)
    return f"127.1.{number // 250 % 250}.{number % 250 + 1}"


@dataclass(frozen=True)
class Request:
    """One request and what came of it; `outcome` is a status or the name of an error."""

    at: float
    took: float
    keeps: bool
    verb: str
    outcome: int | str
    retry_after: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether a client did not get what it was to get, and would have to repeat it."""
        return self.outcome not in {200, 201}


@dataclass
class Client:
    """One client with a document of its own; `keeps` tells whether it keeps its connection."""

    url: str
    path: str
    keeps: bool
    requests: list[Request]
    history: History = field(default_factory=History)
    _connection: Connection | None = None
    _wrote_by: Connection | None = None
    _number: int = 0

    async def run(self, done: asyncio.Event) -> None:
        """Write and read in turn until told to end."""
        while not done.is_set():
            await self._write()
            await asyncio.sleep(PAUSE)
            await self._read()
            await asyncio.sleep(PAUSE)
        self._drop()

    async def _write(self) -> None:
        self._number += 1
        self.history.doubtful.append(self._number)
        answer = await self._ask("PUT", _encode(value(self._number)))
        if answer is not None and answer.status in {200, 201}:
            self.history.acknowledge(self._number, answer.json["version"])
            self._wrote_by = self._connection

    async def _read(self) -> None:
        by = self._connection
        answer = await self._ask("GET")
        if answer is not None and answer.status == 200:
            number_of(answer.json["data"])
            # The same connection is the same replica, which is never behind its own answers.
            is_same = by is not None and by is self._wrote_by
            assert not is_same or answer.json["version"] >= self.history.last[0], "a stale read"

    async def _ask(self, verb: str, body: bytes = b"") -> Answer | None:
        at, answer = time.monotonic(), None
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._sent(verb, body)
            outcome: int | str = answer.status
        except (*LOST, TimeoutError) as error:
            self._drop()
            outcome = type(error).__name__
        retry = answer is not None and "retry-after" in answer.headers
        took = time.monotonic() - at
        self.requests.append(Request(at, took, self.keeps, verb, outcome, retry_after=retry))
        return answer

    async def _sent(self, verb: str, body: bytes) -> Answer:
        if self._connection is None:
            self._connection = await Connection.open(self.url, source=_source())
        answer = await self._connection.ask(verb, self.path, body)
        if answer.says_close or not self.keeps:
            self._drop()
        return answer

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _encode(data: dict[str, object]) -> bytes:
    return str(data).replace("'", '"').encode()


class Load:
    """Clients at work in a thread of their own, from `with` to its end."""

    def __init__(self, url: str, *, clients: int = CLIENTS) -> None:
        self.requests: list[Request] = []
        self._url = url
        self._clients = [
            Client(url, f"/v1/data/drill/{_unique()}-{at}", at % 2 == 0, self.requests)
            for at in range(clients)
        ]
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # it has ended by itself, by a failure
            self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(PATIENCE * 2)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        async def together() -> None:
            async with asyncio.TaskGroup() as group:
                for client in self._clients:
                    group.create_task(client.run(self._done))

        try:
            self._loop.run_until_complete(together())
        except BaseException as error:  # noqa: BLE001 - told by who waits for the load
            self._failure = error
        finally:
            self._loop.close()

    def until(self, number: int, *, seconds: float = 600) -> None:
        """Wait until so many requests are done."""
        end = time.monotonic() + seconds
        while len(self.requests) < number:
            assert self._thread.is_alive(), "the load has ended"
            assert time.monotonic() < end, f"{len(self.requests)} of {number} requests in time"
            time.sleep(0.1)

    @property
    def lost(self) -> list[Request]:
        """The requests that a client would have to repeat."""
        return [request for request in self.requests if request.is_lost]

    def outcomes(self) -> str:
        """Return the number of requests by outcome, most frequent first."""
        found = Counter(str(request.outcome) for request in self.requests)
        return ", ".join(f"{number} of {outcome}" for outcome, number in found.most_common())

    def percentile(self, percent: float) -> float:
        """Return the seconds within which so many percent of the answers came."""
        times = sorted(request.took for request in self.requests if not request.is_lost)
        return times[int(len(times) * percent / 100)]

    def settle(self) -> int:
        """Compare what is stored with what was acknowledged; return how many writes that were.

        Not before the clients have ended: what is under way is neither.
        """
        assert not self._thread.is_alive()
        return asyncio.run(self._settle())

    def told(self) -> str:
        """Return what came of it, for the report, after a comparison with what is stored."""
        return (
            f"{len(self.lost)} of {len(self.requests)} requests lost, "
            f"{self.settle()} acknowledged writes all there"
        )

    async def _settle(self) -> int:
        for client in self._clients:
            connection = await Connection.open(self._url)
            answer = await connection.ask("GET", client.path)
            connection.close()
            found = answer.json
            client.history.settle((found["version"], number_of(found["data"])))
        verbs = (request for request in self.requests if request.verb == "PUT")
        return sum(not request.is_lost for request in verbs)


def _unique() -> str:
    return f"{time.time_ns():x}"
