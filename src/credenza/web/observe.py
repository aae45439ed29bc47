"""The middleware: request id, access, limits, log line and metrics of every request.

Pure ASGI. It stands before everything, so that what is refused here costs neither the body nor a
statement. Must not know what a request is about.
"""

import asyncio
import re
from time import perf_counter
from typing import Final

import structlog
import uuid_utils
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from credenza import errors
from credenza.lifecycle import Lifecycle
from credenza.settings import Settings
from credenza.telemetry import Metrics, RequestLog, Trace, begin_trace
from credenza.web import problems
from credenza.web.access import Access

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

log = structlog.get_logger()


class Observe:
    """Wraps the application; see the module."""

    def __init__(
        self,
        app: ASGIApp,
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, send, self._lifecycle, self._patience)
        scope["state"] = {"request_id": exchange.request_id}
        self._lifecycle.enter()
        try:
            self._admit(scope, exchange.headers)
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
        route = getattr(scope.get("route"), "path", None) or "none"
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        self._metrics.http.count(
            method,
            CLASSES[(exchange.status or 500) // 100],
            route,
            received=_length(exchange.headers.get(b"content-length")),
            sent=_length(exchange.length),
            seconds=seconds,
        )
        self._lines.write(
            exchange.request_id,
            method,
            route,
            exchange.status,
            seconds=seconds,
            cache=exchange.trace.cache or None,
            sql=exchange.trace.statements,
        )


class Exchange:
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
        "trace",
    )

    def __init__(self, scope: Scope, send: Send, lifecycle: Lifecycle, patience: float) -> None:
        self.started = perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = self._accepted_id() or str(uuid_utils.uuid7())
        self.trace: Trace = begin_trace()
        self.status = 0
        self.length: bytes | None = None
        self.is_whole = False
        self._send = send
        self._patience = patience
        self._lifecycle = lifecycle
        self._is_head = scope["method"] == "HEAD"

    def _accepted_id(self) -> str:
        """Return the client's request id if it is one that is safe to repeat."""
        given = self.headers.get(b"x-request-id")
        if given is None:
            return ""
        text = given.decode("latin-1")
        return text if REQUEST_ID.fullmatch(text) else ""

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
        self.is_whole = bool(self.status) and message["type"] == "http.response.body"
        await self._send(message)

    def _begin(self, message: Message) -> None:
        self.status = message["status"]
        for name, value in message["headers"]:
            if name == b"content-length":
                self.length = value
        own = [(b"x-request-id", self.request_id.encode()), NO_SNIFF]
        if self.trace.cache:
            own.append((b"cache-status", CACHE_STATUS[self.trace.cache] + self._ttl()))
        if self._lifecycle.draining:
            own.append(CLOSE)
        message["headers"] = [*message["headers"], *own]

    def _ttl(self) -> bytes:
        return b"" if self.trace.ttl is None else b"; ttl=%d" % self.trace.ttl


def _length(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0
