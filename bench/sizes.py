"""Start and size: how soon the service is there, what it takes, and what a second worker brings.

Must not know what the results are compared with.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from statistics import median
from typing import Final

import psutil

from bench import valkey
from bench.contenders.base import ONE, TWO, Contender, Place
from bench.contenders.credenza import Ours, fill, running
from bench.contenders.starting import Started
from bench.copying import make_database, psql
from bench.load import write, wrk
from bench.measuring import Result, measure
from bench.plan import Plan
from bench.processes import Served, cpu_seconds, until
from bench.workloads import MANY, WORKLOADS, Workload

CACHED: Final = "cached read"
MIX: Final = "mix 95/5, 128 connections"
OF_WORKERS: Final = (CACHED, MIX)
"""The workloads that are also measured with two workers."""

LOADED: Final = "resident memory of a worker under load"
MIB: Final = 2**20
FILLING: Final = 1.0
"""Seconds in which two near caches are filled."""

LOOK_SECONDS: Final = 0.05


def start(place: Place, plan: Plan) -> Result:
    """Return what a start takes, in seconds."""
    cold, busy = [], []
    with running(place.folder, "cold", CREDENZA_HOME=str(place.folder / "cold")):
        pass  # makes the home
    for _ in range(plan.starts):
        begun = time.monotonic()
        with running(place.folder, "cold", CREDENZA_HOME=str(place.folder / "cold")):
            cold.append(time.monotonic() - begun)
        with running(place.folder, "cold", DATABASE_URL=place.database) as found:
            busy.append(cpu_seconds(found.pid))
    return {
        "cold start on an existing home": _size("s", cold),
        "CPU time until it listens": _size("s", busy),
    }


def size(place: Place, plan: Plan) -> tuple[Result, dict[str, Result]]:
    """Return what one worker takes, and the workloads of one and of two workers."""
    with ExitStack() as stack:
        there = {
            name: stack.enter_context(_serving(place, name, number))
            for number, name in enumerate((ONE, TWO), 1)
        }
        found = _taken(there[ONE], place, plan)
        started = Started(place, dict(there), {})
        patient = replace(plan, warm_up=plan.warm_up + FILLING)  # each worker has a near cache
        return found, {
            f"{workload.name}, with Valkey": measure(workload, started, patient)
            for workload in _of_workers()
        }


def _of_workers() -> Iterator[Workload]:
    for workload in WORKLOADS:
        if workload.name in OF_WORKERS:
            yield Workload(
                *(workload.name, workload.operation, (ONE, TWO)),
                asks=workload.asks,
                connections=workload.connections,
            )


@contextmanager
def _serving(place: Place, name: str, workers: int) -> Iterator[Contender]:
    """Start the service with so many workers, on a database and a Valkey of its own.

    Another process has filled the database, so that this one has only what its load needs.
    """
    database = f"workers{workers}"
    make_database(place.database, database)
    settings = {"DATABASE_URL": place.made(database)}
    with running(place.folder, database, **settings) as found:
        fill(found.address, place.corpus)
    psql(place.made(database), "VACUUM ANALYZE")
    with valkey.running(place.folder / "valkey.log") as url:
        settings |= {"REDIS_URL": url, "WORKERS": str(workers)}
        with running(place.folder, database, **settings) as found:
            until(lambda: _listening(found) == workers, name)
            yield Contender(name, found, Ours(place.corpus))


def _listening(found: Served) -> int:
    """Return how many processes of a service have its port."""
    port = int(found.address.rpartition(":")[2])
    process = psutil.Process(found.pid)
    return sum(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for each in (process, *process.children())
        for connection in each.net_connections("tcp")
    )


def _taken(one: Contender, place: Place, plan: Plan) -> Result:
    """Return memory and connections of a service with one worker, at rest and under load.

    Before the load every document is read once, so that the near cache is full.
    """
    pid = one.served.pid
    memory, connections = _memory(pid), _connections(place)
    reads = (one.dialect.read(number) for number in range(place.corpus.documents))
    wrk(one.served.address, write(reads, place.folder), plan.patience, connections=MANY)
    mix = next(workload for workload in WORKLOADS if workload.name == MIX).run(one, plan)
    with _watched(pid) as loaded:
        mix(plan.seconds * plan.rounds)
    return {
        "resident memory of a worker after its start": _size("MiB", [memory]),
        LOADED: _size("MiB", [max(loaded)]),
        "connections of a worker to the database after its start": _size("", [connections]),
        "connections of a worker to the database under load": _size("", [_connections(place)]),
    }


def _memory(pid: int) -> float:
    """Return the resident memory of a process, in MiB."""
    found: int = psutil.Process(pid).memory_info().rss
    return found / MIB


def _connections(place: Place) -> float:
    """Return how many connections the service with one worker has; it closes none for minutes."""
    return float(
        psql(place.database, "SELECT count(*) FROM pg_stat_activity WHERE datname = 'workers1'")
    )


@contextmanager
def _watched(pid: int) -> Iterator[list[float]]:
    """Give the resident memory of a process, looked at again and again."""
    found = [_memory(pid)]
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            found.append(_memory(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _size(unit: str, values: list[float]) -> Result:
    return {"unit": unit, "value": median(values), "values": values}
