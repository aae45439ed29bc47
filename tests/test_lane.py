"""The lane and the router: two ways to one answer, header for header."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from credenza.app import Service, create_app
from credenza.conditions import Conditions
from credenza.forms import LogLevel
from credenza.records import Kind, Record, Records
from credenza.settings import Settings
from credenza.telemetry import Metrics
from credenza.web import lane as lanes
from credenza.web.observe import Observe
from credenza.wire import CollectionSettings
from databases import create_migrated
from servers import Postgres

REQUESTS = 1_500
"""Requests of one run; each is sent to both."""

NAMES = ("", "", "/a", "/a", "/a", "/a", "/a", "/a", "/b", "/none")
ODD_NAMES = (
    *("/", "//a", "/a/b", "/a%2Fb", "/_export", "/_none", "/.", "/%2E%2E", "/a?", "/A", "/~"),
    *("/%C3%A9", "/a%0A", "/a%20", "/" + "x" * 129),
)
QUERIES = ("", "", "", "view=data", "view=document", "view=none", "view=data&view=data", "limit=1")
TAGS = ('"{v}"', 'W/"{v}"', '"1"', '"{v}", "2"', "*", '"abc"', '""', '"0{v}"', "abc", '"{v}', " ")
DATES = ("Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 2100 00:00:00 GMT", "yesterday", "")
HEADERS = {
    "if-none-match": TAGS,
    "if-match": TAGS,
    "if-modified-since": DATES,
    "if-unmodified-since": DATES,
    "prefer": ("return=minimal", "return=representation", "respond-async, return=minimal"),
    "content-type": ("application/json", "application/merge-patch+json", "text/plain"),
    "range": ("bytes=0-3",),
}
BODIES = (b'{"n": 1}', b'{"n": null}', b"[1, 2.50, 1e400]", b"1", b"", b"{", b'"\\u0000"')
WRITES = ("POST", "PUT", "PATCH", "DELETE")
METHODS = ("GET", "GET", "GET", "HEAD", "HEAD", *WRITES, "OPTIONS", "BREW")

MASKS = (
    (rb"ttl=\d+", b"ttl=N"),
    (rb"\d{16}", b"VERSION"),
    (rb'W/"[\w-]{22}"', b"TAG"),
    (rb"\d{4}-\d\d-\d\dT[\d:.]+Z", b"TIME"),
    (rb"\w{3}, \d\d \w{3} 20\d\d [\d:]+ GMT", b"DATE"),
    (rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f-]{17}", b"ID"),
)
"""What differs between two documents that were written one after the other."""


@dataclass(frozen=True)
class Asked:
    """A request, without the collection that it is about."""

    method: str
    name: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Kept(Records):
    """Keeps what the log line of each request tells."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics, level=LogLevel.INFO, as_json=True)
        self.kinds: list[Kind] = []

    def add(self, record: Record) -> None:
        """Keep it, without what differs anyway."""
        self.kinds.append(record[0].kind)


class Past(lanes.Lane):
    """No lane: everything falls through."""

    def __init__(self, lane: lanes.Lane) -> None:
        self.app = lane.app

    def near(self, scope: Scope, asked: dict[bytes, bytes]) -> None:
        """Hold nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave it to the router."""
        await self.app(scope, receive, send)


@dataclass
class Door:
    """One way into a service, and what came out of it."""

    app: ASGIApp
    records: Kept

    async def ask(self, asked: Asked, family: str, version: str) -> tuple[int, Any, bytes]:
        """Send a request; return status, headers and body, masked."""
        name, _, odd = asked.name.partition("?")
        query = "&".join(filter(None, (odd, asked.query)))
        named = [(key, value.replace("{v}", version)) for key, value in asked.headers]
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": asked.method,
            "scheme": "http",
            "path": unquote(family + name),
            "raw_path": (family + name).encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (b"host", b"localhost"),
                (b"x-request-id", b"test"),
                (b"content-length", str(len(asked.body)).encode()),
                *((key.encode(), value.encode()) for key, value in named),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        sent: list[Message] = []
        bodies = [asked.body]

        async def receive() -> Message:
            if not bodies:
                await asyncio.Event().wait()  # the client stays
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        head, *parts = sent
        body = b"".join(part.get("body", b"") for part in parts)
        headers = [(name, _masked(value, family)) for name, value in head["headers"]]
        return head["status"], headers, _masked(body, family)


def _masked(text: bytes, family: str) -> bytes:
    collection = family.rpartition("/")[2].encode()
    for mask, replacement in MASKS:
        text = re.sub(mask, replacement, text)
    return text.replace(collection, b"COLLECTION")


@pytest.fixture
async def service(postgres: Postgres) -> AsyncIterator[Service]:
    """A service with its own near cache, in this process."""
    url = postgres.database(await create_migrated(postgres))
    settings = Settings.model_validate({"log_level": "error", "secret_key": "s" * 32})
    service = Service(settings, url=url)
    async with service.running():
        yield service


@pytest.fixture
def lane(service: Service) -> Door:
    """The way by the lane, as it is served."""
    return _door(service, _lane(service))


@pytest.fixture
def router(service: Service) -> Door:
    """The way past the lane."""
    return _door(service, Past(_lane(service)))


def _lane(service: Service) -> lanes.Lane:
    return create_app(service).app


def _door(service: Service, app: lanes.Lane) -> Door:
    records = Kept(service.metrics)
    observe = Observe(
        app,
        settings=service.settings,
        metrics=service.metrics,
        lifecycle=service.lifecycle,
        records=records,
        tracing=service.tracing,
    )
    return Door(observe, records)


def _generated(random: Random) -> Asked:
    """Return any request; one in three has one odd thing about it or more."""
    chosen = random.sample(sorted(HEADERS), k=random.choice((0, 0, 1, 1, 2)))
    pairs = [(name, random.choice(HEADERS[name])) for name in chosen]
    if pairs and random.random() < 0.1:
        pairs.append((pairs[0][0], random.choice(HEADERS[pairs[0][0]])))
    return Asked(
        random.choice(METHODS),
        random.choice(NAMES if random.random() < 0.8 else ODD_NAMES),
        random.choice(QUERIES),
        tuple(pairs),
        random.choice(BODIES),
    )


@pytest.mark.parametrize("seed", range(4))
async def test_one_answer(service: Service, lane: Door, router: Door, seed: int) -> None:
    """Each generated request gets the same status, headers in order, body, and log line from both.

    They are asked about two collections that have the same documents.
    """
    random = Random(seed)
    seen = set()
    for number in range(REQUESTS // 4):
        asked = _generated(random)
        answers = []
        for door, kind in ((lane, "l"), (router, "r")):
            family = f"/v1/data/{kind}{seed}x{number // 5}"
            put = Asked("PUT", "/a", "", (), b'{"a": [1, {"b": null}]}')
            read = Asked("GET", "/a", "", (), b"")
            await door.ask(put, family, "")
            await door.ask(read, family, "")
            version = str((await service.documents.read(family.rpartition("/")[2], "a")).version)
            answers.append(await door.ask(asked, family, version))
        assert answers[0] == answers[1], (asked, answers)
        assert lane.records.kinds[-1] == router.records.kinds[-1], asked
        seen.add((asked.method, answers[0][0]))
    assert {("GET", 200), ("GET", 304), ("GET", 404), ("POST", 201), ("DELETE", 204)} <= seen


async def test_known_versions(service: Service, lane: Door, router: Door) -> None:
    """Whatever If-None-Match lists, in one line or two, both answer 200, 304 and 400 alike."""
    family = "/v1/data/known"
    await lane.ask(Asked("PUT", "/a", "", (), b"1"), family, "")
    version = str((await service.documents.read("known", "a")).version)
    statuses = set()
    for tags in (*((tag,) for tag in TAGS), *itertools.product(TAGS, repeat=2)):
        asked = Asked("GET", "/a", "", tuple(("if-none-match", tag) for tag in tags), b"")
        answers = [await door.ask(asked, family, version) for door in (lane, router)]
        assert answers[0] == answers[1], asked
        statuses.add(answers[0][0])
    assert statuses == {200, 304, 400}


@pytest.mark.parametrize("family", ["/data", "/v1/data/lane"])
async def test_reads_and_plain_writes_do_not_reach_the_router(
    service: Service, family: str
) -> None:
    """What is asked for most is answered without it: reads, cached or not, POST, PUT, pages."""
    app = _lane(service)

    async def refuse(*_: object) -> None:
        raise AssertionError("it has reached the router")

    app.app, api = refuse, app.app  # type: ignore[assignment]
    door = _door(service, app)
    assert api.state.routes
    outcomes: list[tuple[str, int]] = []
    for method, name, headers in (
        *(("PUT", "/a", ()), ("GET", "/a", ()), ("GET", "/a", ()), ("HEAD", "/a", ())),
        *(("GET", "/a", (("if-none-match", '"{v}"'),)), ("POST", "", ()), ("GET", "", ())),
    ):
        collection = "default" if family == "/data" else "lane"
        known = await service.documents.read(collection, "a") if name and outcomes else None
        version = str(known.version) if known else ""
        answer = await door.ask(Asked(method, name, "", headers, b"1"), family, version)
        outcomes.append((method, answer[0]))
    assert outcomes == [
        *(("PUT", 201), ("GET", 200), ("GET", 200), ("HEAD", 200)),
        *(("GET", 304), ("POST", 201), ("GET", 200)),
    ]


async def test_a_changed_setting_changes_what_was_prepared(service: Service, lane: Door) -> None:
    """A prepared answer does not outlive the collection that it was prepared for."""
    read, put = Asked("GET", "/a", "", (), b""), Asked("PUT", "/a", "", (), b"1")
    await lane.ask(put, "/v1/data/aged", "")
    for max_age, expected in (
        (None, b"private, no-cache"),
        (60, b"public, max-age=60, s-maxage=60"),
    ):
        settings = CollectionSettings(http_max_age=max_age)
        await service.collections.put("aged", settings, Conditions())
        for _ in range(2):
            _, headers, _ = await lane.ask(read, "/v1/data/aged", "")
            assert dict(headers)[b"cache-control"] == expected
