"""One process that serves: the HTTP server, signals, and the order of the end.

Must not know what the application does. The order: SIGTERM → readiness 503 and `Connection: close`
on every answer → serve on for `DRAIN_SECONDS` → finish what is under way → stop listening → the
application lets go of Redis, then of the database. A second SIGTERM, or Ctrl-C, ends the waiting
for clients; one more also ends the waiting for requests.
"""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from starlette.types import ASGIApp

from credenza.app import Service, create_app
from credenza.exposition import exposed
from credenza.settings import Settings

FINISH_SECONDS: Final = 20.0
"""How long requests under way may take to finish after the drain."""

HEADER_SECONDS: Final = 30
"""How long a client may take to send a request's head."""

BACKLOG: Final = 2048

GARBAGE: Final = 50_000
"""Objects that are made, and not freed, before the collector looks for cycles (CPython's gc)."""

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


@contextlib.contextmanager
def kept(host: str, port: int) -> Iterator[None]:
    """Keep a free port from others, whose connections could get it until the server listens there.

    The server shares it with this socket, which listens to nobody (SO_REUSEPORT, socket(7)).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            held.setsockopt(socket.SOL_SOCKET, option, 1)
        held.bind((host, port))
        yield


class Drain:
    """What signals have asked for: to drain, to wait for no client, to wait for no request."""

    def __init__(self, *, is_alone: bool) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.forced = asyncio.Event()
        self._is_alone = is_alone

    def listen(self) -> None:
        """Take SIGTERM and SIGINT from now on."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_terminate)
        loop.add_signal_handler(signal.SIGINT, self.hurry)

    def _on_terminate(self) -> None:
        """Drain; again means hurry, but not among several processes.

        There an init system signals each of them, and so does their supervisor.
        """
        if self.asked.is_set() and self._is_alone:
            self.hurry()
        self.asked.set()

    def hurry(self, *_: object) -> None:
        """Someone sits there: requests are finished, but nobody waits for clients to go."""
        self.asked.set()
        (self.forced if self.hurried.is_set() else self.hurried).set()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until someone is in a hurry."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.hurried.wait(), seconds)


async def work(settings: Settings, *, url: str, port: int, ready: Callable[[], None]) -> None:
    """Serve until a signal says otherwise; `ready` is called when requests are answered."""
    service = Service(settings, url=url)
    app = create_app(service)
    _spare_the_collector()
    drain = Drain(is_alone=settings.workers == 1)
    drain.listen()
    # Several processes leave the port of the metrics to their supervisor.
    metrics_port = settings.metrics_port if settings.workers == 1 else None
    async with service.running():
        with exposed(service.metrics.exposed, settings.host, metrics_port):
            server = new_server(app, settings, port)
            serving = asyncio.create_task(server.serve())
            serving.add_done_callback(drain.hurry)
            announcing = asyncio.create_task(_announce(settings.host, port, ready))
            await drain.asked.wait()
            announcing.cancel()
            service.lifecycle.draining = True
            log.info("draining", seconds=settings.drain_seconds)
            await drain.pause(settings.drain_seconds)
            await _finish(service, server, serving, drain)


def _spare_the_collector() -> None:
    """Have what lives as long as the process looked at no more, and the rest less often.

    What requests leave is freed by its count of references; by default, hundreds of them under way
    would have the collector look through everything again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, *gc.get_threshold()[1:])


def new_server(app: ASGIApp, settings: Settings, port: int) -> Server:
    """Return the server of an application; it does not listen yet."""
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


async def _finish(
    service: Service, server: Server, serving: asyncio.Task[None], drain: Drain
) -> None:
    """Let requests under way and the server come to their end; cut off what does not in time."""
    ending = asyncio.create_task(_end(service, server, serving))
    forced = asyncio.create_task(drain.forced.wait())
    waited = {ending, forced}
    await asyncio.wait(waited, timeout=FINISH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    if not ending.done():
        log.warning("requests were cut off", number=service.lifecycle.in_flight)
    for task in waited:
        task.cancel()
    outcome, _ = await asyncio.gather(ending, forced, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


async def _end(service: Service, server: Server, serving: asyncio.Task[None]) -> None:
    await service.lifecycle.idle()
    server.stop()  # type: ignore[no-untyped-call]  # Granian's has no types
    await serving
