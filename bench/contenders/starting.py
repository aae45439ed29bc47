"""Starts the contenders that the chosen workloads need, and says which cannot be had."""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import valkey
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
    TRACED,
    UNCACHED,
    UNCOUNTED,
    Contender,
    Limit,
    Place,
)
from bench.copying import psql
from bench.corpus import Corpus
from bench.installed import Missing

Start = Callable[[Place], AbstractContextManager[Contender | Limit]]

STARTS: Final[dict[str, Start]] = {
    CEILING: limits.ceiling,
    PLAIN: limits.plain,
    PGBENCH: lambda place: nullcontext(limits.inserts(place, place.corpus.texts[0])),
    COPY: lambda place: nullcontext(limits.copy(place)),
    UNCACHED: credenza.uncached,
    TRACED: credenza.traced,
    UNCOUNTED: credenza.uncounted,
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
        shared = stack.enter_context(valkey.running(folder / "valkey.log"))
        service = stack.enter_context(credenza.embedded(corpus, folder))
        socket = folder / "home/socket"
        url = f"postgresql://credenza@/credenza?host={socket}"
        place = Place(corpus, folder, url, socket, shared)
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
