"""Serves a plain application as the service itself is served: the same server, the same options."""

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from starlette.types import ASGIApp

from credenza.serving import BACKLOG, HEADER_SECONDS

MAX_CONNECTIONS = 1024


async def serve(app: ASGIApp, port: int) -> None:
    """Serve on loopback until the process is ended."""
    server = Server(
        app,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=MAX_CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000),
        log_enabled=False,
    )
    await server.serve()
