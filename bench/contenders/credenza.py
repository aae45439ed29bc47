"""The service itself, with its embedded PostgreSQL, as `make run` starts it."""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.client import client
from bench.contenders.base import (
    CORPUS,
    CREATED,
    CREDENZA,
    JSON,
    NDJSON,
    TRACED,
    UNCACHED,
    UNCOUNTED,
    Contender,
    Dialect,
    Place,
)
from bench.corpus import PAGE, Corpus
from bench.load import Ask
from bench.processes import Served, served
from credenza.serving import free_port

PROGRAM: Final = str(Path(sys.executable).parent / "credenza")
READY: Final = "/health/ready"


class Ours(Dialect):
    """Documents at `/v1/data`; what is created goes to the default collection."""

    root = "/v1/data/"

    def all(self, collection: str) -> str:
        """Return the path of a collection."""
        return "/data" if collection == CREATED else super().all(collection)

    def equal(self, team: str) -> Ask:
        """Read the documents of a team: one equality, which the index answers."""
        return Ask("GET", f"{self.all(CORPUS)}?team=eq.{team}&limit={PAGE}", {})

    def between(self, first: int, below: int) -> Ask:
        """Read the documents whose `n` is in a range, of which the collection has an index."""
        return Ask("GET", f"{self.all(CORPUS)}?n=gte.{first}&n=lt.{below}&limit={PAGE}", {})

    def first_page(self) -> str:
        """Return the path of the first page."""
        return f"{self.all(CORPUS)}?limit=100"

    def export(self) -> Ask:
        """Read all documents as lines of values."""
        return Ask("GET", f"{self.all(CORPUS)}/_export", {})


@contextmanager
def running(
    folder: Path, name: str, *, program: Sequence[str] = (PROGRAM,), **settings: str
) -> Iterator[Served]:
    """Start a service with these settings; its log goes to a file, as anyone's would."""
    port = free_port("127.0.0.1", 0)
    with served(
        *(*program, "serve"),
        port=port,
        path=READY,
        log=folder / f"{name}.log",
        variables=settings | {"PORT": str(port)},
        end=signal.SIGINT,
    ) as found:
        yield found


@contextmanager
def embedded(corpus: Corpus, folder: Path) -> Iterator[Contender]:
    """Start the service with its own PostgreSQL in `folder/home`, and fill it."""
    with running(folder, "credenza", CREDENZA_HOME=str(folder / "home")) as found:
        fill(found.address, corpus)
        yield Contender(CREDENZA, found, Ours(corpus))


@contextmanager
def uncached(place: Place) -> Iterator[Contender]:
    """Start a second one on the same database: without Redis it keeps no cache."""
    with running(place.folder, "uncached", DATABASE_URL=place.database) as found:
        yield Contender(UNCACHED, found, Ours(place.corpus))


@contextmanager
def traced(place: Place) -> Iterator[Contender]:
    """Start a second one like the first, which sends traces to what takes them unseen."""
    port = free_port("127.0.0.1", 0)
    command = (sys.executable, "-m", "bench.peers.constant", str(port))
    with served(*command, port=port, path="/", log=place.folder / "collector.log") as collector:
        settings = {
            "CREDENZA_HOME": str(place.folder / "traced"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        }
        with running(place.folder, "traced", **settings) as found:
            fill(found.address, place.corpus)
            yield Contender(TRACED, found, Ours(place.corpus))


@contextmanager
def uncounted(place: Place) -> Iterator[Contender]:
    """Start a second one like the first, which counts no request."""
    program = (sys.executable, "-m", "bench.peers.uncounted")
    home = str(place.folder / "uncounted")
    with running(place.folder, "uncounted", program=program, CREDENZA_HOME=home) as found:
        fill(found.address, place.corpus)
        yield Contender(UNCOUNTED, found, Ours(place.corpus))


def fill(address: str, corpus: Corpus) -> None:
    """Store the corpus, with an index of what ranges are asked of, as its peers have."""
    with client(address) as one:
        one.ask(Ask("PUT", f"/v1/collections/{CORPUS}", JSON, json.dumps({"indexes": ["n"]})))
        one.send(Ask("POST", f"/v1/data/{CORPUS}/_import?view=document", NDJSON), corpus.whole)
