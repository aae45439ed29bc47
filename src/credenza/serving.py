"""One process that serves: the HTTP server, signals, and the order of the end.

Must not know what the application does. The order: SIGTERM → readiness 503 and `Connection: close`
on every answer → serve on for `DRAIN_SECONDS` → finish what is under way → stop listening → the
application lets go of Redis, then of the database. A second signal ends the waiting.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import structlog
from fastapi import FastAPI
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from prometheus_client import start_http_server

from credenza.app import Service, create_app
from credenza.settings import Settings

FINISH_SECONDS: Final = 20.0
"""How long requests under way may take to finish after the drain."""

HEADER_SECONDS: Final = 30
"""How long a client may take to send a request's head."""

BACKLOG: Final = 2048

log = structlog.get_logger()


def free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0; OSError where something listens there already.

    The server shares its port among processes and would not notice another one's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        found: int = probe.getsockname()[1]
        return found


class Drain:
    """What was asked for by signals: to drain, then to stop without waiting any more."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def listen(self) -> None:
        """Take SIGTERM and SIGINT from now on."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal)
        loop.add_signal_handler(signal.SIGINT, self._on_interrupt)

    def _on_signal(self) -> None:
        (self.hurried if self.asked.is_set() else self.asked).set()

    def _on_interrupt(self) -> None:
        """Someone sits there: requests are finished, but nobody waits for clients to go."""
        self.asked.set()
        self.hurried.set()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until someone is in a hurry."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.hurried.wait(), seconds)


async def work(settings: Settings, *, url: str, port: int, ready: Callable[[], None]) -> None:
    """Serve until a signal says otherwise; `ready` is called when requests are answered."""
    app = create_app(settings, url=url)
    service: Service = app.state.service
    drain = Drain()
    drain.listen()
    async with app.router.lifespan_context(app):
        with _metrics_server(service, settings):
            server = _server(app, settings, port)
            serving = asyncio.create_task(server.serve())
            announcing = asyncio.create_task(_announce(settings.host, port, ready))
            await drain.asked.wait()
            announcing.cancel()
            await _drain(service, settings, drain)
            server.stop()  # type: ignore[no-untyped-call]  # Granian's has no types
            await serving


def _server(app: FastAPI, settings: Settings, port: int) -> Server:
    return Server(
        app,
        address=settings.host,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=settings.max_connections,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000),
        log_enabled=False,
    )


@contextlib.contextmanager
def _metrics_server(service: Service, settings: Settings) -> Iterator[None]:
    """Serve `/metrics` on a port of its own, if one is set; several processes leave it to one."""
    if settings.metrics_port is None or settings.workers > 1:
        yield
        return
    server, thread = start_http_server(
        settings.metrics_port, settings.host, registry=service.metrics.exposed
    )
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _announce(host: str, port: int, ready: Callable[[], None]) -> None:
    """Call `ready` once the port accepts connections."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a look-up
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(target, port)
            writer.close()
            ready()
            return
        await asyncio.sleep(0.01)


async def _drain(service: Service, settings: Settings, drain: Drain) -> None:
    service.lifecycle.draining = True
    log.info("draining", seconds=settings.drain_seconds)
    await drain.pause(settings.drain_seconds)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FINISH_SECONDS):
            await service.lifecycle.idle()
