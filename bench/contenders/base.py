"""How contenders are asked: the requests of every operation, for an ordinary JSON service.

Must not know workloads. A contender overrides what it does otherwise, and says what it lacks.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, ClassVar, Final

from bench.client import Page, client, export, local, stream
from bench.corpus import Corpus, ident
from bench.load import Ask, Measured
from bench.processes import Served

CREDENZA: Final = "credenza"
UNCACHED: Final = "credenza without cache"
TRACED: Final = "credenza, 1 in 100 traced"
UNCOUNTED: Final = "credenza, requests not counted"
ONE: Final = "credenza, 1 worker"
TWO: Final = "credenza, 2 workers"
CEILING: Final = "ceiling"
PLAIN: Final = "plain ASGI + asyncpg"
PGBENCH: Final = "pgbench, 32 clients"
COPY: Final = "PostgreSQL COPY"
OWN: Final = "your own"
OWN_UNCACHED: Final = "your own without cache"
POCKETBASE: Final = "PocketBase"
KINTO: Final = "Kinto"
JSON_SERVER: Final = "json-server"

JSON: Final = {"Content-Type": "application/json"}
NDJSON: Final = {"Content-Type": "application/x-ndjson"}

CORPUS: Final = "corpus"
"""The collection of the documents that are there from the beginning."""

CREATED: Final = "created"
"""The collection of those that are created one by one."""


@dataclass
class Dialect:
    """A contender's words for the operations."""

    corpus: Corpus
    lacks: ClassVar[Mapping[str, str]] = {}
    """Operations that it has no counterpart of, and why."""

    notes: ClassVar[Mapping[str, str]] = {}
    """What a reader has to know of its counterpart of an operation."""

    refuses: ClassVar[Collection[str]] = ()
    """Operations of which it refuses some under load; the notes say why. Others refuse none."""

    connections: ClassVar[Mapping[str, int]] = {}
    """Operations that are measured with another number of connections than that of the workload."""

    root: ClassVar[str] = "/"
    imports: int = field(default=0, init=False)

    def all(self, collection: str) -> str:
        """Return the path of a collection."""
        return f"{self.root}{collection}"

    def one(self, number: int) -> str:
        """Return the path of a document of the corpus."""
        return f"{self.all(CORPUS)}/{ident(number)}"

    def read(self, number: int) -> Ask:
        """Read a document."""
        return Ask("GET", self.one(number), {})

    def create(self, text: str) -> Ask:
        """Store a document under a new id."""
        return Ask("POST", self.all(CREATED), JSON, text)

    def replace(self, number: int, value: dict[str, Any]) -> Ask:
        """Replace a document."""
        return Ask("PUT", self.one(number), JSON, json.dumps(value))

    def patch(self, number: int, change: dict[str, Any]) -> Ask:
        """Change members of a document."""
        return Ask("PATCH", self.one(number), JSON, json.dumps(change))

    def equal(self, team: str) -> Ask:
        """Read the documents of a team."""
        raise NotImplementedError

    def between(self, first: int, below: int) -> Ask:
        """Read the documents whose `n` is in a range."""
        raise NotImplementedError

    def first_page(self) -> str:
        """Return the path of the first page of all documents, 100 a page."""
        raise NotImplementedError

    def paged(self, answer: HTTPResponse, body: bytes) -> Page:
        """Read the answer with a page; the next one is in its `Link`."""
        link = answer.headers.get("Link", "")
        found = [part for part in link.split(",") if 'rel="next"' in part]
        url = found[0].partition("<")[2].partition(">")[0] if found else None
        return 100, url and local(url)

    def known(self, address: str, numbers: list[int]) -> list[Ask]:
        """Read documents that the client has: each with its ETag, asked for at the address."""
        asks = [self.read(number) for number in numbers]
        with client(address) as one:
            tags = {ask.path: one.ask(ask)[0].headers["ETag"] for ask in asks}
        return [ask._replace(headers={"If-None-Match": tags[ask.path]}) for ask in asks]

    def export(self) -> Ask:
        """Read all documents in one request."""
        raise NotImplementedError

    def take(self, address: str) -> Measured:
        """Import all documents of the corpus into a collection of their own, with new ids."""
        self.imports += 1
        ask = Ask("POST", f"{self.all(f'imported{self.imports}')}/_import", NDJSON)
        return stream(address, ask, self.corpus.values, self.corpus.documents)

    def give(self, address: str) -> Measured:
        """Export all documents."""
        return export(address, self.export(), self.corpus.documents)


@dataclass(frozen=True)
class Contender:
    """A contender that runs. One without an address is no server, but a program that measures."""

    name: str
    served: Served
    dialect: Dialect


@dataclass(frozen=True)
class Limit:
    """A program that does one operation, as fast as it can be done: it measures itself."""

    name: str
    run: Callable[[float], Measured]


@dataclass(frozen=True)
class Place:
    """Where contenders find what they need."""

    corpus: Corpus
    folder: Path
    database: str
    """URL of the service's database, for libpq and asyncpg."""

    socket: Path
    valkey: str
    """URL of a Valkey."""

    def made(self, name: str) -> str:
        """Return the URL of another database on the same server."""
        return f"postgresql://credenza@/{name}?host={self.socket}"
