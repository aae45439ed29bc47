"""The middleware: request id, access, limits, log line and metrics of every request.

Pure ASGI. It stands before everything, so that what is refused here costs neither the body nor a
statement. Must not know what a request is about.
"""

import re
from functools import lru_cache
from time import perf_counter
from typing import Final

import structlog
import uuid_utils
from starlette.types import Message, Receive, Scope, Send

from credenza import errors
from credenza.lifecycle import Lifecycle
from credenza.patience import Patience
from credenza.records import NO_ROUTE, OTHER, Kind, Records
from credenza.settings import Settings
from credenza.telemetry import Metrics, Trace, begin_trace
from credenza.tracing import Span, Traced, Tracing, enter
from credenza.web import problems
from credenza.web.access import Access
from credenza.web.fields import Fields, keep, read
from credenza.web.lane import Hit, Lane

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}")
PROBES: Final = "/health"
"""Answered without a token, for probes have none, and whatever the load; what is below too."""

NEAR: Final = "hit-near"

CACHE_STATUS: Final = {
    NEAR: b"credenza; hit",
    "hit-redis": b"credenza; hit; detail=redis",
    "miss": b"credenza; fwd=uri-miss",
    "bypass": b"credenza; fwd=bypass",
}
"""How the cache's outcome is told to the client (RFC 9211 §2)."""

MAX_TTLS: Final = 1_000
"""Seconds to live whose header is remembered."""

SERVER_ERRORS: Final = 500

START: Final = "http.response.start"
BODY: Final = "http.response.body"
NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
CLOSE: Final = (b"connection", b"close")

log = structlog.get_logger()


class NotReadError(Exception):
    """The client did not read on for BODY_TIMEOUT."""


class Observe:
    """Wraps the lane, and by that the application; see the module."""

    def __init__(
        self,
        app: Lane,
        *,
        settings: Settings,
        metrics: Metrics,
        lifecycle: Lifecycle,
        records: Records,
        tracing: Tracing,
    ) -> None:
        self.app = app
        self._tracing = tracing
        self._access = Access(settings)
        self._max_in_flight = settings.max_in_flight
        self._admitted = 0
        """Requests under way, but for probes and for what is refused: those need no token."""
        self._patience = Patience(settings.body_timeout)
        self._refused = metrics.refused["requests"]
        self._lifecycle = lifecycle
        self._records = records

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, fields = perf_counter(), read(scope["headers"])
        traced = self._tracing.begin(fields)
        near = self._near(scope, fields)
        if near is None:
            exchange = Exchange(
                scope, fields, started, receive, send, self._lifecycle, self._patience
            )
            exchange.traced = traced
            await self._serve(scope, exchange)
            return
        status, answer, body, ttl, route = near
        request_id = _request_id(fields)
        answer = [*answer, (b"x-request-id", request_id.encode()), NO_SNIFF, _near_status(int(ttl))]
        self._lifecycle.enter()
        self._admitted += 1
        try:
            await send({"type": START, "status": status, "headers": answer})
            await send({"type": BODY, "body": body if scope["method"] == "GET" else b""})
        finally:
            self._admitted -= 1
            self._lifecycle.leave()
            seen = self._records.seen(scope["method"], route, status, NEAR, 0)
            self._records.add((seen, request_id, 0, len(body), started, perf_counter(), traced))
            if traced is not None and traced.span is not None:
                _end(traced.span, seen.kind, request_id, scope["scheme"])

    def _near(self, scope: Scope, fields: Fields) -> Hit | None:
        """Return what the near cache answers, if nothing stands against it."""
        if (
            self._lifecycle.draining
            or self._admitted >= self._max_in_flight
            or not self._access.lets_in(scope["method"], fields)
        ):
            return None
        return self.app.near(scope, fields)

    async def _serve(self, scope: Scope, exchange: "Exchange") -> None:
        """Serve what takes more than that."""
        self._lifecycle.enter()
        counts = False
        try:
            counts = self._admit(scope, exchange.fields)
            keep(scope, exchange.fields, exchange.request_id)
            begin_trace(exchange)
            if exchange.traced is not None:
                _enter(exchange.traced)
            await self.app(scope, exchange.receive, exchange.send)
        except NotReadError:
            # Only a broken connection tells a client that its answer is not whole.
            raise
        except Exception as error:
            exchange.has_failed = True
            if not isinstance(error, errors.Problem):
                log.exception("failed", request_id=exchange.request_id)
            if not exchange.status:
                await self._refuse(scope, exchange, error)
            elif not exchange.is_whole:
                raise
        finally:
            self._admitted -= counts
            self._lifecycle.leave()
            self._record(scope, exchange)

    def _admit(self, scope: Scope, fields: Fields) -> bool:
        """Return whether a request counts towards the limit from now on.

        Raise the problem that stands against serving it, before its body is read.
        """
        if scope["path"].startswith(PROBES):
            return False
        self._access.check(scope["method"], fields)
        if self._admitted >= self._max_in_flight:
            self._refused.inc()
            raise errors.Overloaded(f"{self._max_in_flight} requests are under way.")
        self._admitted += 1
        return True

    async def _refuse(self, scope: Scope, exchange: "Exchange", error: Exception) -> None:
        problem = error if isinstance(error, errors.Problem) else errors.Internal()
        answer = problems.render(problem, path=scope["path"], request_id=exchange.request_id)
        await answer(scope, exchange.receive, exchange.send)

    def _record(self, scope: Scope, exchange: "Exchange") -> None:
        """Leave what the metrics and the canonical log line are made of."""
        route = scope["route"].path if "route" in scope else NO_ROUTE
        seen = self._records.seen(
            scope["method"],
            route,
            exchange.status,
            exchange.cache,
            exchange.statements,
            exchange.broken,
        )
        traced, received, sent = exchange.traced, exchange.received, int(exchange.length)
        ended = perf_counter()
        self._records.add(
            (seen, exchange.request_id, received, sent, exchange.started, ended, traced)
        )
        if traced is not None and traced.span is not None:
            _end(traced.span, seen.kind, exchange.request_id, scope["scheme"])


def _end(span: Span, kind: Kind, request_id: str, scheme: str) -> None:
    """End the span of a request, which is known by its route only now.

    Names as in OpenTelemetry's conventions for HTTP server spans.
    """
    attributes: dict[str, str | int] = {
        "http.request.method": "_OTHER" if kind.method == OTHER else kind.method,
        "http.response.status_code": kind.status,
        "url.scheme": scheme,
        "credenza.request_id": request_id,
        "credenza.cache": kind.cache or "none",
    }
    name = "HTTP" if kind.method == OTHER else kind.method
    if kind.route != NO_ROUTE:
        attributes["http.route"] = kind.route
        name = f"{name} {kind.route}"
    if kind.broken or kind.status >= SERVER_ERRORS:
        attributes["error.type"] = kind.broken or str(kind.status)
    span.rename(name)
    span.end(attributes)


class Exchange(Trace):
    """One request and its answer, as far as the middleware is concerned with them."""

    __slots__ = (
        "_is_head",
        "_lifecycle",
        "_patience",
        "_receive",
        "_send",
        "fields",
        "has_failed",
        "is_whole",
        "length",
        "received",
        "request_id",
        "started",
        "status",
        "traced",
    )

    def __init__(
        self,
        scope: Scope,
        fields: Fields,
        started: float,
        receive: Receive,
        send: Send,
        lifecycle: Lifecycle,
        patience: Patience,
    ) -> None:
        super().__init__()
        self.started = started
        self.fields = fields
        self.request_id = _request_id(fields)
        self.status = 0
        self.length = b"0"
        self.received = 0
        """Bytes of the body that were read."""
        self.is_whole = False
        self.has_failed = False
        self.traced: Traced | None = None
        self._receive = receive
        self._send = send
        self._patience = patience
        self._lifecycle = lifecycle
        self._is_head = scope["method"] == "HEAD"

    @property
    def broken(self) -> str:
        """Why an answer that began did not end: `failed`, or `unread` by its client."""
        if self.is_whole or not self.status:
            return ""
        return "failed" if self.has_failed else "unread"

    async def receive(self) -> Message:
        """Pass a part of the body on."""
        message = await self._receive()
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on; a response's start gets the headers that all responses have."""
        if message["type"] == START:
            self._begin(message)
        elif self._is_head:
            message["body"] = b""
        if message.get("more_body"):
            # A client that does not read on holds what the answer holds, but not for ever.
            try:
                with self._patience:
                    await self._send(message)
            except TimeoutError:
                raise NotReadError from None
            return
        self.is_whole = message["type"] == BODY
        await self._send(message)

    def _begin(self, message: Message) -> None:
        self.status = message["status"]
        headers: list[tuple[bytes, bytes]] = message["headers"]
        for name, value in headers:
            if name == b"content-length":
                self.length = value
        own = [(b"x-request-id", self.request_id.encode()), NO_SNIFF]
        if self.cache:
            own.append(self._cache_status())
        if self._lifecycle.draining:
            own.append(CLOSE)
        message["headers"] = headers + own

    def _cache_status(self) -> tuple[bytes, bytes]:
        if self.cache == NEAR and self.ttl is not None:
            return _near_status(int(self.ttl))
        ttl = b"" if self.ttl is None else b"; ttl=%d" % self.ttl
        return b"cache-status", CACHE_STATUS[self.cache] + ttl


def _enter(traced: Traced) -> None:
    """Have all that is done for a request found by its trace."""
    structlog.contextvars.bind_contextvars(**traced.ids)
    if traced.span is not None:
        enter(traced.span)


@lru_cache(MAX_TTLS)
def _near_status(ttl: int) -> tuple[bytes, bytes]:
    return b"cache-status", b"%s; ttl=%d" % (CACHE_STATUS[NEAR], ttl)


def _request_id(fields: Fields) -> str:
    """Return the client's request id if it is one that is safe to repeat, else a new one."""
    given = fields.get(b"x-request-id")
    if given is not None and REQUEST_ID.fullmatch(text := given.decode("latin-1")):
        return text
    return str(uuid_utils.uuid7())
