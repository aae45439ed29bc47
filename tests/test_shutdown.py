"""The end of a service: clients are told to leave, requests are answered, nothing is left."""

import asyncio
import itertools
import os
import random
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import httpx2
import psutil
import pytest
import uvloop

from conftest import Serve
from credenza.serving import FINISH_SECONDS
from databases import create_migrated
from keepalive import LOST, Answer, Connection, Tally
from servers import Postgres, Valkey, until
from service import CREDENZA, PATIENCE, Running, environment

CONNECTIONS = 1600
FILES = 4096
"""Open files that so many connections need, here and in the service."""

PAUSE = 2.0
"""Seconds that a client waits between two requests at the most."""

FOR_EVER = 600
"""Seconds of a drain that no test waits for."""

HALF = b"1\n2\n"
IMPORT = (
    b"POST /v1/data/lines/_import HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n" % (2 * len(HALF))
) + HALF
"""An import whose second half the test sends when it likes."""


@pytest.fixture
async def database(postgres: Postgres) -> str:
    """The address of a database that no other test uses."""
    return postgres.database(await create_migrated(postgres))


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the processes of the home's PostgreSQL."""
    found = psutil.process_iter(["name", "cwd"])
    return [process for process in found if (process.info["cwd"] or "").startswith(str(home))]


def is_draining(running: Running) -> bool:
    """Return whether readiness says so."""
    answer = httpx2.get(f"{running.url}/health/ready")
    return answer.status_code == 503 and "draining" in answer.text


def until_draining(running: Running) -> None:
    """Wait until the service knows that it is to end."""
    until(lambda: is_draining(running), "readiness says that it drains")


def test_drain_tells_clients_to_leave(serve: Serve) -> None:
    """SIGTERM: not ready, alive, serving, and each answer closes its connection; then the end."""
    running = serve(drain_seconds=FOR_EVER)
    home = Path(str(running.settings["credenza_home"]))
    with running.client() as client:
        assert "connection" not in client.put("/data/a", json=1).headers
        running.process.terminate()
        until_draining(running)
        answers = {path: client.get(path) for path in ("/health/live", "/data/a", "/data/none")}
        assert [answer.status_code for answer in answers.values()] == [200, 200, 404]
        assert client.put("/data/b", json=2).status_code == 201
        assert all(answer.headers["connection"] == "close" for answer in answers.values())
    assert running.stop() == 0, "a second SIGTERM ends the waiting"
    assert not processes_of(home)
    running.start()
    with running.client() as client:
        assert [client.get(f"/data/{id_}").json()["data"] for id_ in "ab"] == [1, 2]
    assert running.stop(signal.SIGINT) == 0


def test_drain_takes_its_time(serve: Serve, database: str) -> None:
    """It serves on for DRAIN_SECONDS, and then ends by itself."""
    running = serve(database_url=database, drain_seconds=2)
    began = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - began >= 2


async def test_request_under_way_is_answered(serve: Serve, database: str) -> None:
    """An import that is half sent when the drain ends is taken, answered and kept."""
    running = await asyncio.to_thread(serve, database_url=database)
    connection = await Connection.open(running.url)
    connection.send(IMPORT)
    await asyncio.to_thread(until_under_way, running)
    running.process.terminate()
    await asyncio.to_thread(until_draining, running)
    connection.send(HALF)
    answer = await connection.answer()
    connection.close()
    assert (answer.status, answer.says_close) == (200, True)
    assert await asyncio.to_thread(running.process.wait, PATIENCE) == 0
    await asyncio.to_thread(running.start)
    with running.client() as client:
        assert len(client.get("/v1/data/lines").json()["items"]) == answer.json["written"] == 4


def until_under_way(running: Running) -> None:
    """Wait until a request is under way besides the one that asks."""
    name = "credenza_requests_in_flight "

    def is_under_way() -> bool:
        lines = httpx2.get(f"{running.url}/metrics").text.splitlines()
        return any(line.startswith(name) and float(line.split()[1]) >= 1 for line in lines)

    until(is_under_way, "a request is under way")


async def test_second_interrupt_waits_for_no_request(serve: Serve) -> None:
    """Ctrl-C waits for requests under way, a second one does not; the home is left in order."""
    running = await asyncio.to_thread(serve, drain_seconds=FOR_EVER, body_timeout=FOR_EVER)
    home = Path(str(running.settings["credenza_home"]))
    connection = await Connection.open(running.url)
    connection.send(IMPORT)
    await asyncio.to_thread(until_under_way, running)
    interrupt(running)
    await asyncio.to_thread(until_draining, running)
    interrupt(running)
    assert await asyncio.to_thread(running.process.wait, PATIENCE) == 0
    times = {
        line["event"]: datetime.fromisoformat(line["timestamp"]) for line in running.log_lines()
    }
    waited = times["requests were cut off"] - times["draining"]
    assert waited.total_seconds() < FINISH_SECONDS
    connection.close()
    assert not processes_of(home)


def interrupt(running: Running) -> None:
    """Press Ctrl-C: the signal goes to all processes of the terminal's foreground group."""
    os.killpg(running.process.pid, signal.SIGINT)


def test_interrupt_does_not_wait_for_clients(serve: Serve) -> None:
    """Ctrl-C ends it at once although a client keeps its connection."""
    running = serve(drain_seconds=FOR_EVER)
    home = Path(str(running.settings["credenza_home"]))
    with running.client() as client:
        assert client.put("/data/a", json=1).status_code == 201
        interrupt(running)
        assert running.process.wait(PATIENCE) == 0
    assert not processes_of(home)
    assert "Traceback" not in running.log()


def children_of(running: Running) -> dict[psutil.Process, str]:
    """Return the processes that the service has started, with their commands."""
    found: dict[psutil.Process, str] = {}
    for child in psutil.Process(running.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # a zombie too
            found[child] = " ".join(child.cmdline())
    return found


@pytest.mark.parametrize("stage", ["initdb", "credenza migrate"])
def test_sigterm_during_the_start(serve: Serve, stage: str) -> None:
    """Who is told to end while it starts ends in order, and the next start goes through."""
    running = serve(wait=False)
    until(lambda: any(stage in command for command in children_of(running).values()), stage)
    children = children_of(running)
    assert running.stop() == 0
    assert not any(child.is_running() for child in children)
    assert not processes_of(Path(str(running.settings["credenza_home"])))
    assert "Traceback" not in running.log()
    running.start()


def refusal(**settings: object) -> str:
    """Start a service that cannot start, and return the one line that says why."""
    ended = subprocess.run(
        [CREDENZA, "serve"],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    return line


def test_two_on_one_home_and_on_one_port(serve: Serve, folder: Path) -> None:
    """Who comes second learns in one line who holds the home, or that the port is taken."""
    running = serve()
    home = running.settings["credenza_home"]
    assert refusal(credenza_home=home, port=0) == (
        f"credenza: {home} is in use by process {running.process.pid}, which serves {running.url}"
    )
    port = running.url.rpartition(":")[2]
    line = refusal(credenza_home=folder / "home", port=port)
    assert f"cannot listen on 127.0.0.1:{port}" in line
    assert not (folder / "home").exists()


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the connections need, if the machine allows them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"needs {FILES} open files: ulimit -Hn {FILES}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_drain_loses_no_request(
    serve: Serve, database: str, valkey: Valkey, many_files: None
) -> None:
    """1,600 busy keep-alive connections move to a second instance: each request is answered."""
    settings = {"database_url": database, "redis_url": valkey.url, "query_timeout": PATIENCE}
    first, second = (
        serve(drain_seconds=FOR_EVER, max_in_flight=2 * CONNECTIONS, **settings) for _ in range(2)
    )
    movers = uvloop.run(move(first, second))
    outcomes: Counter[int | str] = sum((mover.outcomes for mover in movers), Counter())
    assert outcomes.keys() == {200, 201}, outcomes
    assert outcomes[201] == CONNECTIONS
    assert first.process.returncode == 0
    assert second.stop(signal.SIGINT) == 0


class Mover:
    """A client that goes to the second service when the first one closes its connection."""

    def __init__(self, number: int, urls: tuple[str, str], opened: Tally) -> None:
        self._path = f"/data/{number}"
        self._random = random.Random(number)
        self._urls = iter(urls)
        self._requests = itertools.cycle([("PUT", b"1"), *([("GET", b"")] * 4)])
        self._opened = opened
        self._connection: Connection | None = None
        self.outcomes: Counter[int | str] = Counter()

    async def run(self, tally: Tally, ended: asyncio.Event) -> None:
        """Send requests until told to end, and count how each one went."""
        while not ended.is_set():
            try:
                answer = await self._ask(*next(self._requests))
                self.outcomes[answer.status] += 1
                if answer.says_close:
                    self._leave()
            except LOST as error:
                self.outcomes[repr(error)] += 1
                self._leave()
            tally.add()
            await asyncio.sleep(self._random.uniform(0, PAUSE))
        self._leave()

    async def _ask(self, method: str, body: bytes) -> Answer:
        if self._connection is None:
            self._connection = await Connection.open(next(self._urls))
            self._opened.add()
        return await self._connection.ask(method, self._path, body)

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def move(first: Running, second: Running) -> list[Mover]:
    """Let the clients work, tell the first service to end, and return them when all have moved.

    How long that takes depends on the machine; so the drain here lasts as long as it must.
    """
    tally, opened, ended = Tally(), Tally(), asyncio.Event()
    movers = [Mover(number, (first.url, second.url), opened) for number in range(CONNECTIONS)]
    async with asyncio.TaskGroup() as group:
        for mover in movers:
            group.create_task(mover.run(tally, ended))
        await tally.reach(2 * CONNECTIONS)
        assert opened.count == CONNECTIONS
        first.process.terminate()
        await opened.reach(CONNECTIONS)
        await asyncio.to_thread(first.stop)
        await tally.reach(CONNECTIONS // 2)
        ended.set()
    return movers
