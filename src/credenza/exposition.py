"""Metrics on a port of their own: few clients at once, none of which may dawdle.

Must not know which series there are. Requests have no token there and come from anywhere, so that
a client holds one thread of `AT_ONCE` at the most, and no longer than seconds. A scrape runs in a
thread of its own, beside the event loop.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

AT_ONCE: Final = 16
"""Connections at once. One beyond takes the place of those that have not sent a head yet."""

GRACE_SECONDS: Final = 0.2
"""How long a head may be on its way before one beyond takes its sender's place."""

TURN_SECONDS: Final = 1.0
"""How long one beyond waits for a place, where all are being answered; then it is closed."""

HEAD_SECONDS: Final = 5.0
"""How long a request's head may take."""

ANSWER_SECONDS: Final = 15.0
"""How long a connection may take in all; Prometheus waits 10 s, unless it is told otherwise."""


@contextlib.contextmanager
def exposed(registry: CollectorRegistry, host: str, port: int | None) -> Iterator[None]:
    """Serve a registry by HTTP on the port, if there is one; OSError where it is taken."""
    if port is None:
        yield
        return
    with _Server(registry, host, port) as server:
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Handler(WSGIRequestHandler):
    """One request."""

    def handle(self) -> None:
        """Answer it, unless the client goes away first."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, and an eye on how long each takes."""

    daemon_threads = True
    request_queue_size = 128  # where the queue is full, a client tries again a second later

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._begun: dict[socket.socket, float] = {}
        self._changing = threading.Condition()  # none is closed while it is ended
        super().__init__((host, port), _Handler)
        self.set_app(make_wsgi_app(registry))

    def verify_request(self, *_: Any) -> bool:
        """Return whether there is a place for one more connection."""
        with self._changing:
            if not self._changing.wait_for(self._has_place, GRACE_SECONDS):
                self._end_reading()
            return self._changing.wait_for(self._has_place, TURN_SECONDS)

    def _has_place(self) -> bool:
        return len(self._begun) < AT_ONCE

    def _end_reading(self) -> None:
        """Wait for no head any more; what is being answered stays."""
        for connection in self._begun:
            _end(connection, socket.SHUT_RD)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin with a connection."""
        self._begun[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End what takes too long; called twice a second."""
        now = time.monotonic()
        with self._changing:
            for connection, begun in self._begun.items():
                if now - begun > ANSWER_SECONDS:
                    _end(connection, socket.SHUT_RDWR)
                elif now - begun > HEAD_SECONDS:
                    _end(connection, socket.SHUT_RD)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._changing:
            self._begun.pop(request, None)
            self._changing.notify_all()
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close the port, and what is idle."""
        super().server_close()
        with self._changing:
            self._end_reading()


def _end(connection: socket.socket, how: int) -> None:
    """End reading or more: a thread that waits for it goes on at once."""
    with contextlib.suppress(OSError):  # the client has ended it
        connection.shutdown(how)
