"""Several processes on one port: coherent, counted together, started and ended as one."""

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
import pytest

from conftest import Serve
from credenza.cgroups import memory_limit
from credenza.supervisor import next_pause
from databases import create_migrated
from keepalive import Connection
from servers import Postgres, Valkey, accepts, free_port, until
from service import Running

ASKED = 60
"""Connections opened to find both processes: the kernel spreads them, so none is left out."""

WITHIN = 1.0
"""Seconds after which a write is seen by all processes (promise 2)."""


def workers(running: Running) -> dict[int, psutil.Process]:
    """Return the processes that serve, by pid."""
    found: dict[int, psutil.Process] = {}
    for child in psutil.Process(running.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "one-of-many" in child.cmdline():
                found[child.pid] = child
    return found


def listens(process: psutil.Process, port: int) -> bool:
    """Return whether the process listens on the port."""
    with suppress(psutil.NoSuchProcess):
        ends = process.net_connections()
        return any(end.status == psutil.CONN_LISTEN and end.laddr.port == port for end in ends)
    return False


def serving(running: Running) -> set[int]:
    """Return the pids of the processes that listen on the service's port."""
    port = int(running.url.rpartition(":")[2])
    return {pid for pid, process in workers(running).items() if listens(process, port)}


def until_both_serve(running: Running) -> set[int]:
    """Wait until two processes listen, and return their pids."""
    until(lambda: len(serving(running)) == 2, "two processes listen")
    return serving(running)


@pytest.fixture
async def database(postgres: Postgres) -> str:
    """The address of a database that no other test uses."""
    return postgres.database(await create_migrated(postgres))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Running]:
    """Two processes that share one port, one database and one Redis."""
    folder = tmp_path_factory.mktemp("pair")
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)
    settings = {"workers": 2, "redis_url": valkey.url, "metrics_port": free_port()}
    running = Running(folder, credenza_home=folder / "home", **settings).start()
    yield running
    assert running.stop() == 0


async def open_to_both(running: Running) -> tuple[Connection, Connection]:
    """Return a connection to each process, told apart by whose end of it is open."""
    until_both_serve(running)
    found: dict[int, Connection] = {}
    for _ in range(ASKED):
        connection = await Connection.open(running.url)
        await connection.ask("GET", "/health/live")
        for pid, process in workers(running).items():
            ends = {end.raddr[1:] for end in process.net_connections()}
            if (connection.port,) in ends and found.setdefault(pid, connection) is connection:
                break
        else:
            connection.close()
        if len(found) == 2:
            break
    first, second = found.values()
    return first, second


async def test_write_is_seen_by_all_processes(pair: Running) -> None:
    """A read after an acknowledged write sees it: at once where it was made, elsewhere in 1 s."""
    first, second = await open_to_both(pair)
    for number in range(30):
        writer, other = (first, second) if number % 2 else (second, first)
        await other.ask("GET", "/data/a")
        await writer.ask("GET", "/data/a")
        written = (await writer.ask("PUT", "/data/a", str(number).encode())).json
        assert (await writer.ask("GET", "/data/a")).json == written
        acknowledged = asked = time.monotonic()
        while (await other.ask("GET", "/data/a")).json != written:
            assert asked < acknowledged + WITHIN, "a read that began later than that is stale"
            asked = time.monotonic()
    for connection in (first, second):
        connection.close()


def creations(url: str) -> float:
    """Return how many documents were created, by the metrics at an address."""
    name = 'credenza_documents_written_total{verb="create"} '
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def test_metrics_are_those_of_all_processes(pair: Running) -> None:
    """What each process counts is added up, on the port and on METRICS_PORT."""
    before = creations(pair.url)
    connections = await open_to_both(pair)
    for connection in connections:
        for _ in range(7):
            assert (await connection.ask("POST", "/data", b"1")).status == 201
        connection.close()
    for url in addresses(pair):
        assert creations(url) == before + 14


def of_processes(url: str) -> dict[str, float]:
    """Return the series of the processes, by the metrics at an address."""
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    pairs = [
        line.split()
        for line in lines
        if line.startswith(("process_", "credenza_memory_limit_bytes "))
    ]
    return {name: float(value) for name, value in pairs}


def addresses(running: Running) -> tuple[str, str]:
    """Return where metrics are: of the process that answers, and of the supervisor."""
    return running.url, f"http://127.0.0.1:{running.settings['metrics_port']}"


def test_processes_are_measured_as_one(pair: Running) -> None:
    """Memory and CPU time are those of all; of open files the most counts, of starts the latest."""
    until_both_serve(pair)
    members = [psutil.Process(pid) for pid in (pair.process.pid, *workers(pair))]
    assert len(members) == 3
    for url in addresses(pair):
        found = of_processes(url)
        memory = [member.memory_info() for member in members]
        assert found["process_resident_memory_bytes"] == pytest.approx(
            sum(each.rss for each in memory), rel=0.05
        )
        assert found["process_virtual_memory_bytes"] == pytest.approx(
            sum(each.vms for each in memory), rel=0.05
        )
        assert found["credenza_memory_limit_bytes"] == memory_limit()
        times = [member.cpu_times() for member in members]
        spent = sum(each.user + each.system for each in times)
        ended = times[0].children_user + times[0].children_system
        assert found["process_cpu_seconds_total"] == pytest.approx(spent + ended, abs=0.5)
        opened = [member.num_fds() for member in members]
        assert abs(found["process_open_fds"] - max(opened)) <= 2
        assert (
            found["process_max_fds"] == resource.prlimit(members[0].pid, resource.RLIMIT_NOFILE)[0]
        )
        latest = max(member.create_time() for member in members)
        assert found["process_start_time_seconds"] == pytest.approx(latest, abs=0.05)


def heartbeat(url: str) -> float:
    """Return when Redis has last answered, by the metrics at an address."""
    name = "credenza_cache_heartbeat_timestamp_seconds "
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    (value,) = [line.removeprefix(name) for line in lines if line.startswith(name)]
    return float(value)


def test_heartbeat_is_that_of_who_lags_behind(pair: Running) -> None:
    """A process that is stopped shows, although it cannot tell."""
    stopped = psutil.Process(min(until_both_serve(pair)))
    _, address = addresses(pair)
    until(lambda: time.time() - heartbeat(address) < WITHIN, "both are answered")
    stopped.suspend()
    try:
        until(lambda: time.time() - heartbeat(address) > 2 * WITHIN, "its heartbeat is late")
    finally:
        stopped.resume()
    until(lambda: time.time() - heartbeat(address) < WITHIN, "both are answered again")


def test_killed_process_is_started_again(pair: Running) -> None:
    """A process that is killed is replaced, while the other one goes on serving.

    That is one start more, and its CPU time is not lost: the counter never falls.
    """
    before = until_both_serve(pair)
    killed, kept = sorted(before, key=lambda pid: psutil.Process(pid).create_time(), reverse=True)
    _, address = addresses(pair)
    seen = [of_processes(address)]

    def now_serving() -> set[int]:
        seen.append(of_processes(address))
        return serving(pair)

    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in now_serving(), "it has ended")
    until(lambda: len(now_serving()) == 2, "two processes listen")
    after = serving(pair)
    spent = [each["process_cpu_seconds_total"] for each in seen]
    assert spent == sorted(spent)
    seen += map(of_processes, addresses(pair))
    starts = {each["process_start_time_seconds"] for each in seen}
    assert len(starts) == 2
    assert seen[-1]["process_start_time_seconds"] > seen[0]["process_start_time_seconds"]
    assert kept in after
    assert killed not in after
    with pair.client() as client:
        assert client.post("/data", json=1).status_code == 201


def test_process_that_cannot_start_is_tried_less_and_less(serve: Serve, folder: Path) -> None:
    """The pause doubles each time, and the log tells it; the other one stays.

    Here the file of a secret is gone. When it is back, so is the process.
    """
    token = folder / "token"
    token.write_text("t")
    running = serve(workers=2, auth_token_file=token, log_format="json")
    killed = min(until_both_serve(running))

    def pauses() -> list[float]:
        ended = [line for line in running.log_lines() if line["event"] == "a process ended"]
        return [line["pause_seconds"] for line in ended]

    token.rename(folder / "away")
    os.kill(killed, signal.SIGKILL)
    until(lambda: len(pauses()) >= 3, "it has ended again and again")
    assert len(serving(running)) == 1
    (folder / "away").rename(token)
    until_both_serve(running)
    assert pauses()[:3] == [1, 2, 4]
    assert running.stop() == 0


def test_pauses_grow_until_a_process_has_run_for_a_while() -> None:
    """From 1 s to 30 s for those that end soon; after a longer run it is 1 s again."""
    pauses = [0.0]
    for _ in range(7):
        pauses.append(next_pause(pauses[-1], ran=29.9))
    assert pauses[1:] == [1, 2, 4, 8, 16, 30, 30]
    assert next_pause(30, ran=30) == 1


def test_sigterm_ends_all(serve: Serve, valkey: Valkey) -> None:
    """Each process drains, and the supervisor's status is 0."""
    running = serve(workers=2, redis_url=valkey.url)
    members = until_both_serve(running)
    assert running.stop() == 0
    assert not any(psutil.pid_exists(pid) for pid in members)
    assert sum(line["event"] == "draining" for line in running.log_lines()) == 2


def test_processes_end_with_their_supervisor(serve: Serve) -> None:
    """A supervisor that is killed leaves nothing that keeps the port or the home from the next."""
    port = free_port()
    running = serve(workers=2, port=port, drain_seconds=600)
    with running.client() as client:
        assert client.put("/data/a", json=1).status_code == 201
    running.kill()
    until(lambda: not accepts(port), "the port is free")
    running.start()
    with running.client() as client:
        assert client.get("/data/a").json()["data"] == 1
    assert running.stop(signal.SIGINT) == 0


def test_without_redis_there_is_no_near_cache(serve: Serve, database: str) -> None:
    """The log says that the near cache is off, and both processes read what was written."""
    running = serve(workers=2, database_url=database)
    until_both_serve(running)
    assert any("no near cache" in line["event"] for line in running.log_lines())
    with running.client() as client:
        for number in range(20):
            client.put("/data/a", json=number, headers={"Connection": "close"})
            answer = client.get("/data/a", headers={"Connection": "close"})
            assert answer.json()["data"] == number
            assert "hit" not in answer.headers["cache-status"]
