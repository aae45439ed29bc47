"""PocketBase: one program with SQLite in it; collections with typed fields, open to everyone.

Its request log is off, and batches are allowed; all else is as it comes, also its durability
(`synchronous=NORMAL`). It uses all cores.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from itertools import islice
from typing import Any, ClassVar, Final
from urllib.parse import quote

import msgspec

from bench.client import Client, Page, batches, client
from bench.contenders.base import CORPUS, CREATED, JSON, POCKETBASE, Contender, Dialect, Place
from bench.corpus import PAGE, Corpus, ident
from bench.installed import place as installed
from bench.load import Ask, Measured
from bench.processes import run, served
from credenza.serving import free_port

BATCH: Final = 1_000
SOME: Final = 20_000
IMPORTED: Final = "imported"
ACCOUNT: Final = ("bench@example.com", "benchmark-only")
OPEN: Final = dict.fromkeys(("listRule", "viewRule", "createRule", "updateRule"), "")
FIELDS: Final = (
    *({"name": name, "type": "text"} for name in ("name", "team", "text")),
    {"name": "n", "type": "number"},
    {"name": "tags", "type": "json"},
)


class _Record(msgspec.Struct):
    id: str


class _Records(msgspec.Struct):
    items: list[_Record]


class PocketBase(Dialect):
    """Records of a collection; its filters are expressions."""

    lacks: ClassVar = {
        "known": "its records have no ETags",
        "export": "a request gives 1,000 records at the most",
    }
    notes: ClassVar = {
        "replace": "PATCH with every field: it has no other replacement",
        "walk": "pages by a filter on the last id, without the total: its fastest way",
        "import": f"a part, by its batches: {BATCH:,} records and one transaction each",
    }

    def all(self, collection: str) -> str:
        """Return the path of a collection."""
        return f"/api/collections/{collection}/records"

    def replace(self, number: int, value: dict[str, Any]) -> Ask:
        """Change every field."""
        return self.patch(number, value)

    def equal(self, team: str) -> Ask:
        """Read the records of a team."""
        return self._filtered(f"team='{team}'")

    def between(self, first: int, below: int) -> Ask:
        """Read the records whose `n` is in a range."""
        return self._filtered(f"n>={first}&&n<{below}")

    def _filtered(self, text: str) -> Ask:
        path = f"{self.all(CORPUS)}?filter=({quote(text)})&perPage={PAGE}&skipTotal=1"
        return Ask("GET", path, {})

    def first_page(self) -> str:
        """Return the path of the first page."""
        return f"{self.all(CORPUS)}?perPage=100&skipTotal=1&sort=id"

    def paged(self, answer: HTTPResponse, body: bytes) -> Page:
        """Go on after the last id."""
        items = msgspec.json.decode(body, type=_Records).items
        after = quote(f"(id>'{items[-1].id}')") if items else ""
        return len(items), f"{self.first_page()}&filter={after}" if items else None

    def take(self, address: str) -> Measured:
        """Create a part of the records by batches."""
        texts = self.corpus.texts[:SOME]
        return batches(address, self.batches(IMPORTED, map(json.loads, texts)), texts)

    def batches(self, collection: str, values: Iterable[dict[str, Any]]) -> Iterator[Ask]:
        """Yield requests that create many records each."""
        left = iter(values)
        while bodies := list(islice(left, BATCH)):
            requests = [
                {"method": "POST", "url": self.all(collection), "body": body} for body in bodies
            ]
            yield Ask("POST", "/api/batch", JSON, json.dumps({"requests": requests}))


@contextmanager
def running(place: Place) -> Iterator[Contender]:
    """Start it with three collections, and fill the first."""
    program = str(installed("pocketbase") / "base")
    data = f"--dir={place.folder}/pocketbase"
    run(program, "superuser", "upsert", *ACCOUNT, data)
    port = free_port("127.0.0.1", 0)
    with served(
        *(program, "serve", f"--http=127.0.0.1:{port}", data, "--automigrate=false"),
        port=port,
        path="/api/health",
        log=place.folder / "pocketbase.log",
        folder=place.folder,
    ) as found:
        dialect = PocketBase(place.corpus)
        with client(found.address) as one:
            _prepare(one)
            for ask in dialect.batches(CORPUS, _whole(place.corpus)):
                one.ask(ask)
        yield Contender(POCKETBASE, found, dialect)


def _prepare(one: Client) -> None:
    """Make the collections, with indexes on what is filtered; `imported` has them too."""
    path = "/api/collections/_superusers/auth-with-password"
    account = dict(zip(("identity", "password"), ACCOUNT, strict=True))
    _, body = one.ask(Ask("POST", path, JSON, json.dumps(account)))
    headers = JSON | {"Authorization": json.loads(body)["token"]}
    settings = {
        "batch": {"enabled": True, "maxRequests": BATCH, "timeout": 120},
        "logs": {"maxDays": 0},
    }
    one.ask(Ask("PATCH", "/api/settings", headers, json.dumps(settings)))
    for name in (CORPUS, CREATED, IMPORTED):
        indexes = [f"CREATE INDEX {name}_{by} ON {name} ({by})" for by in ("team", "n")]
        collection = OPEN | {"name": name, "type": "base", "fields": FIELDS, "indexes": indexes}
        one.ask(Ask("POST", "/api/collections", headers, json.dumps(collection)))


def _whole(corpus: Corpus) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(corpus.texts):
        yield json.loads(text) | {"id": ident(number)}
