"""The middleware: request id, access, limits, log line and metrics of every request.

Pure ASGI. It stands before everything, so that what is refused here costs neither the body nor a
statement. Must not know what a request is about.
"""

import asyncio
import re
from time import perf_counter
from typing import Final, NamedTuple

import structlog
import uuid_utils
from starlette.types import Message, Receive, Scope, Send

from credenza import errors
from credenza.lifecycle import Lifecycle
from credenza.settings import Settings
from credenza.tallies import Tally
from credenza.telemetry import Kind, Metrics, RequestLog, Trace, begin_trace
from credenza.web import problems
from credenza.web.access import Access
from credenza.web.lane import Headers, Lane

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}")
PROBES: Final = "/health"
"""Answered without a token, for probes have none, and whatever the load; what is below too."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLASSES: Final = {number: f"{number}xx" for number in range(1, 6)}

CACHE_STATUS: Final = {
    "hit-near": b"credenza; hit",
    "hit-redis": b"credenza; hit; detail=redis",
    "miss": b"credenza; fwd=uri-miss",
    "bypass": b"credenza; fwd=bypass",
}
"""How the cache's outcome is told to the client (RFC 9211 §2)."""

NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
CLOSE: Final = (b"connection", b"close")

MAX_KINDS: Final = 10_000
"""Kinds of requests that are remembered; there are as many as routes, statuses and costs allow."""

log = structlog.get_logger()


class Seen(NamedTuple):
    """What requests of one kind are counted in, and what their lines have in common."""

    kind: Kind
    tally: Tally
    line: tuple[str, str]


class Observe:
    """Wraps the lane, and by that the application; see the module."""

    def __init__(
        self,
        app: Lane,
        *,
        settings: Settings,
        metrics: Metrics,
        lifecycle: Lifecycle,
        lines: RequestLog,
    ) -> None:
        self.app = app
        self._access = Access(settings)
        self._max_in_flight = settings.max_in_flight
        self._patience = settings.body_timeout
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._lines = lines
        self._seen: dict[tuple[str, str, int, str, int], Seen] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, send, self._lifecycle, self._patience)
        self._lifecycle.enter()
        try:
            self._admit(scope, exchange.headers)
            if (answer := self.app.near(scope, exchange)) is not None:
                await exchange.answer(*answer)
            else:
                scope["state"] = {"request_id": exchange.request_id}
                begin_trace(exchange)
                await self.app(scope, receive, exchange.send)
        except errors.Problem as problem:
            await self._refuse(scope, receive, exchange, problem)
        except Exception:
            log.exception("failed", request_id=exchange.request_id)
            if exchange.status and not exchange.is_whole:
                # Only a broken connection tells the client that the answer is not whole.
                raise
            if not exchange.status:
                await self._refuse(scope, receive, exchange, errors.Internal())
        finally:
            self._lifecycle.leave()
            self._record(scope, exchange)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raise the problem that stands against serving a request, before its body is read."""
        if scope["path"].startswith(PROBES):
            return
        self._access.check(scope["method"], headers)
        if self._lifecycle.in_flight > self._max_in_flight:
            self._metrics.refused.inc()
            raise errors.Overloaded(f"{self._max_in_flight} requests are under way.")

    async def _refuse(
        self, scope: Scope, receive: Receive, exchange: "Exchange", problem: errors.Problem
    ) -> None:
        answer = problems.render(problem, path=scope["path"], request_id=exchange.request_id)
        await answer(scope, receive, exchange.send)

    def _record(self, scope: Scope, exchange: "Exchange") -> None:
        """Write the metrics and the canonical log line."""
        seconds = perf_counter() - exchange.started
        route = scope["route"].path if "route" in scope else "none"
        key = (scope["method"], route, exchange.status, exchange.cache, exchange.statements)
        seen = self._seen.get(key) or self._kind(*key)
        received = exchange.headers.get(b"content-length")
        seen.tally.add(int(received) if received else 0, int(exchange.length), seconds)
        self._lines.write(seen.kind, seen.line, exchange.request_id, seconds)

    def _kind(self, method: str, route: str, status: int, cache: str, statements: int) -> Seen:
        """Return where requests of a kind are counted; a kind that is seen often is remembered."""
        named = method if method in METHODS else "OTHER"
        kind = Kind(named, route, status, cache or None, statements)
        tally = self._metrics.http.tally(named, CLASSES[(status or 500) // 100], route)
        seen = Seen(kind, tally, self._lines.parts(kind))
        if named == method and len(self._seen) < MAX_KINDS:
            self._seen[method, route, status, cache, statements] = seen
        return seen


class Exchange(Trace):
    """One request and its answer, as far as the middleware is concerned with them."""

    __slots__ = (
        "_is_head",
        "_lifecycle",
        "_patience",
        "_send",
        "headers",
        "is_whole",
        "length",
        "request_id",
        "started",
        "status",
    )

    def __init__(self, scope: Scope, send: Send, lifecycle: Lifecycle, patience: float) -> None:
        super().__init__()
        self.started = perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id")
        self.request_id = (given and _accepted(given)) or str(uuid_utils.uuid7())
        self.status = 0
        self.length = b"0"
        self.is_whole = False
        self._send = send
        self._patience = patience
        self._lifecycle = lifecycle
        self._is_head = scope["method"] == "HEAD"

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer."""
        start = {"type": "http.response.start", "status": status, "headers": headers}
        self._begin(start)
        await self._send(start)
        self.is_whole = True
        body = b"" if self._is_head else body
        await self._send({"type": "http.response.body", "body": body})

    async def send(self, message: Message) -> None:
        """Pass a message on; a response's start gets the headers that all responses have."""
        if message["type"] == "http.response.start":
            self._begin(message)
        elif self._is_head:
            message["body"] = b""
        if message.get("more_body"):
            # A client that does not read on holds what the answer holds, but not for ever.
            async with asyncio.timeout(self._patience):
                await self._send(message)
            return
        self.is_whole = message["type"] == "http.response.body"
        await self._send(message)

    def _begin(self, message: Message) -> None:
        self.status = message["status"]
        headers: Headers = message["headers"]
        for name, value in headers:
            if name == b"content-length":
                self.length = value
        own = [(b"x-request-id", self.request_id.encode()), NO_SNIFF]
        if self.cache:
            own.append((b"cache-status", CACHE_STATUS[self.cache] + self._ttl()))
        if self._lifecycle.draining:
            own.append(CLOSE)
        message["headers"] = headers + own

    def _ttl(self) -> bytes:
        return b"" if self.ttl is None else b"; ttl=%d" % self.ttl


def _accepted(given: bytes) -> str:
    """Return the client's request id if it is one that is safe to repeat."""
    text = given.decode("latin-1")
    return text if REQUEST_ID.fullmatch(text) else ""
