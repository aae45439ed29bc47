"""The one middleware: request id, token, limits, log line and metrics of every request.

Pure ASGI. It stands before everything, so that what is refused here costs neither the body nor a
statement. Must not know what a request is about.
"""

import asyncio
import hmac
import re
from collections.abc import Callable
from time import perf_counter
from typing import Final

import structlog
import uuid_utils
from prometheus_fastapi_instrumentator.metrics import Info
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from credenza import errors
from credenza.lifecycle import Lifecycle
from credenza.settings import Settings
from credenza.telemetry import Metrics, Trace, begin_trace
from credenza.web import problems

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}")
PROBES: Final = "/health"
"""Answered without a token, for probes have none, and whatever the load; what is below too."""

PORT: Final = re.compile(r":\d+$")
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

CACHE_STATUS: Final = {
    "hit-near": b"credenza; hit",
    "hit-redis": b"credenza; hit; detail=redis",
    "miss": b"credenza; fwd=uri-miss",
    "bypass": b"credenza; fwd=bypass",
}
"""How the cache's outcome is told to the client (RFC 9211 §2)."""

log = structlog.get_logger()


class Observe:
    """Wraps the application; see the module."""

    def __init__(
        self, app: ASGIApp, *, settings: Settings, metrics: Metrics, lifecycle: Lifecycle
    ) -> None:
        self._app = app
        self._token: Callable[[], str] | None = settings.token if settings.wants_token else None
        self._own_names = LOCAL_NAMES | {settings.host}
        self._is_private = settings.is_loopback and self._token is None
        self._max_in_flight = settings.max_in_flight
        self._patience = settings.body_timeout
        self._metrics = metrics
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, send, lifecycle=self._lifecycle, patience=self._patience)
        scope["state"] = {"request_id": exchange.request_id}
        self._lifecycle.enter()
        try:
            await self._serve(scope, receive, exchange)
        except Exception:
            log.exception("failed", request_id=exchange.request_id)
            if exchange.status:
                # The answer has begun: only a broken connection tells the client that it is
                # not whole.
                raise
            await self._refuse(scope, receive, exchange, errors.Internal())
        finally:
            self._lifecycle.leave()
            self._record(scope, exchange)

    async def _serve(self, scope: Scope, receive: Receive, exchange: "Exchange") -> None:
        try:
            if not scope["path"].startswith(PROBES):
                self._admit(scope["method"], exchange.headers)
        except errors.Problem as problem:
            await self._refuse(scope, receive, exchange, problem)
        else:
            await self._app(scope, receive, exchange.send)

    def _admit(self, method: str, headers: dict[bytes, bytes]) -> None:
        """Raise the problem that stands against serving a request, before its body is read."""
        if not self._is_admitted(headers):
            raise errors.Unauthenticated(headers={"WWW-Authenticate": "Bearer"})
        if self._is_private and self._is_foreign(method, headers):
            raise errors.Forbidden
        if self._lifecycle.in_flight > self._max_in_flight:
            self._metrics.refused.inc()
            raise errors.Overloaded(f"{self._max_in_flight} requests are under way.")

    def _is_admitted(self, headers: dict[bytes, bytes]) -> bool:
        """Compare the bearer token in constant time (RFC 6750 §2.1)."""
        if self._token is None:
            return True
        scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
        try:
            expected = self._token().encode()
        except (OSError, UnicodeError) as error:
            log.exception("token unreadable")
            raise errors.Unavailable("The service cannot read its token.") from error
        # A file that is just being written anew may be empty: then nobody is admitted.
        matches = hmac.compare_digest(credentials.strip(), expected) and bool(expected)
        return matches and scheme.lower() == b"bearer"

    def _is_foreign(self, method: str, headers: dict[bytes, bytes]) -> bool:
        """Return whether a web page of another site may want to read or write here.

        Such a page reaches a service on loopback through the browser of its reader: directly, where
        it can write but not read, or by a name of its own that it lets point here.
        """
        if method not in SAFE_METHODS and headers.get(b"sec-fetch-site") == b"cross-site":
            return True
        host = headers.get(b"host", b"localhost").decode("latin-1")
        return PORT.sub("", host).lower() not in self._own_names

    async def _refuse(
        self, scope: Scope, receive: Receive, exchange: "Exchange", problem: errors.Problem
    ) -> None:
        answer = problems.render(problem, path=scope["path"], request_id=exchange.request_id)
        await answer(scope, receive, exchange.send)

    def _record(self, scope: Scope, exchange: "Exchange") -> None:
        """Write the metrics and the canonical log line."""
        duration = perf_counter() - exchange.started
        route = getattr(scope.get("route"), "path", None) or "none"
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        if self._metrics.http is not None:
            self._metrics.http(
                Info(
                    request=Request(scope),
                    response=Response(headers=exchange.length, status_code=exchange.status or 500),
                    method=method,
                    modified_handler=route,
                    modified_status=f"{(exchange.status or 500) // 100}xx",
                    modified_duration=duration,
                    modified_duration_without_streaming=exchange.first_byte - exchange.started,
                )
            )
        log.info(
            "request",
            request_id=exchange.request_id,
            method=method,
            route=route,
            status=exchange.status,
            duration_ms=round(duration * 1000, 3),
            cache=exchange.trace.cache or None,
            sql=exchange.trace.statements,
        )


class Exchange:
    """One request and its answer, as far as the middleware is concerned with them."""

    def __init__(self, scope: Scope, send: Send, *, lifecycle: Lifecycle, patience: float) -> None:
        self.started = self.first_byte = perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = self._accepted_id() or str(uuid_utils.uuid7())
        self.trace: Trace = begin_trace()
        self.status = 0
        self.length: dict[str, str] = {}
        self._send = send
        self._patience = patience
        self._lifecycle = lifecycle
        self._is_head = scope["method"] == "HEAD"
        self._is_http1 = scope.get("http_version", "1.1").startswith("1")

    def _accepted_id(self) -> str:
        """Return the client's request id if it is one that is safe to repeat."""
        text = self.headers.get(b"x-request-id", b"").decode("latin-1")
        return text if REQUEST_ID.fullmatch(text) else ""

    async def send(self, message: Message) -> None:
        """Pass a message on; a response's start gets the headers that all responses have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.first_byte = perf_counter()
            message["headers"] = [*message["headers"], *self._own_headers()]
            for name, value in message["headers"]:
                if name.lower() == b"content-length":
                    self.length = {"content-length": value.decode()}
        elif self._is_head:
            message["body"] = b""
        if message.get("more_body"):
            # A client that does not read on holds what the answer holds, but not for ever.
            async with asyncio.timeout(self._patience):
                await self._send(message)
        else:
            await self._send(message)

    def _ttl(self) -> bytes:
        return b"" if self.trace.ttl is None else b"; ttl=%d" % self.trace.ttl

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        own = [
            (b"x-request-id", self.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        if self.trace.cache:
            own.append((b"cache-status", CACHE_STATUS[self.trace.cache] + self._ttl()))
        if self._lifecycle.draining and self._is_http1:
            own.append((b"connection", b"close"))
        return own
