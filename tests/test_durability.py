"""Promise 1: what was acknowledged is durable, whatever is killed, and nothing is half done."""

import asyncio
import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import psutil
import pytest
import uvloop

from conftest import Serve
from databases import connected, create_migrated
from keepalive import LOST, Answer, Connection
from ledger import Ledger, value
from servers import Postgres, accepts, free_port, until
from service import PATIENCE, Running

WRITES = 20_000
CLIENTS = 24
DOCUMENTS = 20
"""Documents that each client overwrites, patches and deletes; the others are made anew."""

AFTER_KILL = 200
"""Writes that a service which lives on must have acknowledged before the comparison."""

LINES = 40
"""Lines of an import: one chunk, so one statement."""

VERBS = ("PUT", "PATCH", "DELETE", "POST", "IMPORT")
SHARES = (40, 20, 8, 30, 2)
PATH = "/v1/data/kept"


class Client:
    """One writer; nobody else writes its documents."""

    def __init__(self, running: Running, ledger: Ledger, number: int) -> None:
        self._running = running
        self._ledger = ledger
        self._random = random.Random(number)
        self._ids = [f"{number}-{at}" for at in range(DOCUMENTS)]
        self._connection: Connection | None = None

    async def run(self, done: asyncio.Event) -> None:
        """Write until told to end; a lost connection is made again."""
        try:
            while not done.is_set():
                await self._one()
        finally:
            self._drop()

    async def _one(self) -> None:
        verb = self._random.choices(VERBS, SHARES)[0]
        if verb == "POST":
            await self._create()
        elif verb == "IMPORT":
            await self._import()
        else:
            await self._write(verb, self._random.choice(self._ids))

    async def _ask(self, method: str, path: str, body: bytes = b"", type_: str = "") -> Answer:
        """Send a write; raise one of LOST where nobody knows whether it was done."""
        try:
            if self._connection is None:
                self._connection = await Connection.open(self._running.url)
            answer = await self._connection.ask(method, path, body, type_ or "application/json")
        except LOST:
            self._drop()
            await asyncio.sleep(0.02)
            raise
        if answer.status == 503:
            await asyncio.sleep(0.02)
            if answer.json.get("outcome") == "unknown":
                raise EOFError
        return answer

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _write(self, verb: str, id_: str) -> None:
        history = self._ledger.histories[id_]
        number = None if verb == "DELETE" else self._ledger.take()[0]
        body = b"" if number is None else json.dumps(value(number)).encode()
        try:
            answer = await self._ask(verb, f"{PATH}/{id_}", body)
        except LOST:
            history.doubtful.append(number)
            return
        if answer.status in {200, 201, 204}:
            version = None if number is None else int(answer.json["version"])
            history.acknowledge(number, version)
            self._ledger.acknowledged.add()
        elif answer.status == 404:
            assert not history.exists, f"{id_} is lost"
        else:
            assert answer.status == 503, answer

    async def _create(self) -> None:
        number = self._ledger.take()[0]
        try:
            answer = await self._ask("POST", PATH, json.dumps(value(number)).encode())
        except LOST:
            self._ledger.created[number] = None
            return
        if answer.status == 201:
            self._ledger.created[number] = (answer.json["id"], int(answer.json["version"]))
            self._ledger.acknowledged.add()
        else:
            assert answer.status == 503, answer

    async def _import(self) -> None:
        numbers = self._ledger.take(LINES)
        body = b"".join(json.dumps(value(number)).encode() + b"\n" for number in numbers)
        try:
            answer = await self._ask("POST", f"{PATH}/_import", body, "application/x-ndjson")
        except LOST:
            self._ledger.groups.append(numbers)
            return
        if answer.status == 200:
            assert answer.json["written"] == LINES
            self._ledger.imported.update(numbers)
            self._ledger.acknowledged.add(LINES)
        else:
            assert answer.status == 503, answer


def postmaster(running: Running) -> psutil.Process:
    """Return the embedded server's first process."""
    children = psutil.Process(running.process.pid).children()
    return next(child for child in children if child.name() == "postgres")


def backends(server: psutil.Process) -> list[psutil.Process]:
    """Return the server's processes that work for the service."""
    return [child for child in server.children() if "[local]" in " ".join(child.cmdline())]


def kill_service(running: Running) -> None:
    """Kill the service; its database goes on without it."""
    running.kill()


def kill_postmaster(running: Running) -> None:
    """Kill the database's first process; those that work go on until they notice."""
    postmaster(running).kill()


def kill_backend(running: Running) -> None:
    """Kill a process that works for the service; the database then restarts all of them."""
    backends(postmaster(running))[0].kill()


def kill_both(running: Running) -> None:
    """Kill the service and the database's first process."""
    server = postmaster(running)
    running.kill()
    server.kill()


def kill_all(running: Running) -> None:
    """Kill every process, as a power cut does."""
    server = postmaster(running)
    family = [server, *server.children()]
    running.kill()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()


KILLS: tuple[Callable[[Running], None], ...] = (
    *(kill_service, kill_postmaster, kill_backend, kill_both, kill_all),
)


async def write(
    clients: list[Client], ledger: Ledger, goal: int, kill: Callable[[], bool] | None = None
) -> None:
    """Let the clients write until so many writes are acknowledged, then kill amid them.

    `kill` tells whether the service lives on; then it must come to acknowledge writes again.
    """
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(done))
        await ledger.acknowledged.reach(goal - ledger.acknowledged.count)
        if kill is not None and kill():
            await ledger.acknowledged.reach(AFTER_KILL)
        done.set()


def stored(running: Running) -> list[dict[str, object]]:
    """Return everything that is stored."""
    with running.client() as client:
        exported = client.get(f"{PATH}/_export", params={"view": "document"})
    assert exported.status_code == 200
    return [json.loads(line) for line in exported.text.splitlines()]


def killed(running: Running, kill: Callable[[Running], None]) -> bool:
    """Kill, and tell whether the service lives on."""
    kill(running)
    return running.process.poll() is None


def bring_back(running: Running) -> None:
    """Start the service again if it has ended, and wait until it is ready."""
    if running.process.poll() is not None:
        running.start(wait=False)
    running.until_ready()


@pytest.mark.timeout(300)
def test_acknowledged_is_durable(serve: Serve) -> None:
    """Five kills amid 20,000 acknowledged writes lose none, double none, leave none half done."""
    uvloop.run(write_and_kill(serve()))


async def write_and_kill(running: Running) -> None:
    """Write, kill, compare; after each kill nothing else has happened yet."""
    ledger = Ledger(f"{number}-{at}" for number in range(CLIENTS) for at in range(DOCUMENTS))
    clients = [Client(running, ledger, number) for number in range(CLIENTS)]
    for number, kill in enumerate(KILLS, 1):
        goal = number * WRITES // (len(KILLS) + 1)
        await write(clients, ledger, goal, partial(killed, running, kill))
        bring_back(running)
        ledger.settle(stored(running))
    await write(clients, ledger, WRITES)
    ledger.settle(stored(running))
    for verb, statement in (("put", "put_documents"), ("create", "insert_documents")):
        written = series(running, f'credenza_documents_written_total{{verb="{verb}"}}')
        seconds = "credenza_database_statement_seconds_count"
        sent = series(running, f'{seconds}{{statement="{statement}"}}')
        assert 0 < sent < written, f"{written} writes by {verb} have not shared {sent} statements"
    assert running.stop() == 0


def series(running: Running, name: str) -> float:
    """Return what a service has counted since its start."""
    with running.client() as client:
        text = client.get("/metrics").text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def started(serve: Serve, **settings: object) -> Running:
    """Start a service that is not expected to be ready, and wait until it listens."""
    port = free_port()
    running = serve(wait=False, port=port, **settings)
    running.url = f"http://127.0.0.1:{port}"
    until(partial(accepts, port), "the service does not listen")
    return running


def until_refused(running: Running, name: str) -> None:
    """Wait until readiness names the setting; documents are refused in the same words."""
    with running.client() as client:
        until(lambda: name in client.get("/health/ready").text, "readiness names it")
        answers = (client.get("/health/ready"), client.get("/data"), client.put("/data/a", json=1))
        for answer in answers:
            assert answer.status_code == 503
            assert name in answer.text
            assert "UNSAFE_DURABILITY=true" in answer.text
        assert client.get("/health/live").status_code == 200


@pytest.fixture
async def unsafe(postgres: Postgres) -> str:
    """A database in which commits are answered before they are durable."""
    name = await create_migrated(postgres)
    async with connected(postgres, name) as connection:
        await connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    return name


async def test_asynchronous_commit_is_refused(
    serve: Serve, postgres: Postgres, unsafe: str
) -> None:
    """Nothing is served from such a database, until it is set right; no restart is needed."""
    running = started(serve, database_url=postgres.database(unsafe))
    await asyncio.to_thread(until_refused, running, "synchronous_commit")
    async with connected(postgres, unsafe) as connection:
        await connection.execute(f"ALTER DATABASE {unsafe} RESET synchronous_commit")
    await asyncio.to_thread(running.until_ready)
    with running.client() as client:
        assert client.put("/data/a", json=1).status_code == 201


def test_unsafe_database_is_served_if_told_to(
    serve: Serve, postgres: Postgres, unsafe: str
) -> None:
    """UNSAFE_DURABILITY=true says that losing writes is accepted."""
    running = serve(database_url=postgres.database(unsafe), unsafe_durability=True)
    with running.client() as client:
        assert client.put("/data/a", json=1).status_code == 201


def test_embedded_database_made_unsafe_is_refused(serve: Serve) -> None:
    """Who switches safety off in the home learns in one line why nothing starts."""
    running = serve()
    assert running.stop() == 0
    with (running.folder / "home/data/postgresql.conf").open("a") as configuration:
        configuration.write("fsync = off\nfull_page_writes = off\n")
    running.start(wait=False)
    assert running.process.wait(PATIENCE) == 1
    last = running.log().splitlines()[-1]
    assert last.startswith("credenza: ")
    assert "fsync, full_page_writes" in last
    assert "UNSAFE_DURABILITY=true" in last
