"""What you would write yourself, on uvicorn with uvloop, httptools and the service's PostgreSQL."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bench.client import client
from bench.contenders.base import (
    CORPUS,
    NDJSON,
    OWN,
    OWN_UNCACHED,
    Contender,
    Dialect,
    Place,
)
from bench.copying import make_database, psql
from bench.corpus import PAGE
from bench.load import Ask
from bench.processes import Served, served
from credenza.serving import free_port

DATABASE: Final = "own"


class Own(Dialect):
    """Documents at `/{collection}/{id}`; two filters, which are all that it has."""

    def equal(self, team: str) -> Ask:
        """Read the documents of a team."""
        return Ask("GET", f"{self.all(CORPUS)}?team={team}&limit={PAGE}", {})

    def between(self, first: int, below: int) -> Ask:
        """Read the documents whose `n` is in a range."""
        return Ask("GET", f"{self.all(CORPUS)}?n_from={first}&n_below={below}&limit={PAGE}", {})

    def first_page(self) -> str:
        """Return the path of the first page."""
        return f"{self.all(CORPUS)}?limit=100"

    def export(self) -> Ask:
        """Read all documents as lines of values."""
        return Ask("GET", f"{self.all(CORPUS)}/_export", {})


@contextmanager
def cached(place: Place) -> Iterator[Contender]:
    """Start it with its cache in Valkey."""
    with _running(place, "own", {"REDIS_URL": place.valkey}) as found:
        yield Contender(OWN, found, Own(place.corpus))


@contextmanager
def uncached(place: Place) -> Iterator[Contender]:
    """Start it without a cache, on the same database."""
    with _running(place, "own-uncached", {}) as found:
        yield Contender(OWN_UNCACHED, found, Own(place.corpus))


@contextmanager
def _running(place: Place, name: str, variables: dict[str, str]) -> Iterator[Served]:
    """Start it; whoever makes its database fills it."""
    is_new = make_database(place.database, DATABASE)
    port = free_port("127.0.0.1", 0)
    with served(
        *(sys.executable, "-m", "uvicorn", "--factory", "bench.peers.own:create_app"),
        *("--port", str(port), "--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--log-level", "warning"),
        port=port,
        path=f"/{CORPUS}",
        log=place.folder / f"{name}.log",
        variables=variables | {"DATABASE_URL": place.made(DATABASE)},
    ) as found:
        if is_new:
            with client(found.address) as one:
                ask = Ask("POST", f"/{CORPUS}/_import?whole=true", NDJSON)
                one.send(ask, place.corpus.whole)
            psql(place.made(DATABASE), "VACUUM ANALYZE")
        yield found
