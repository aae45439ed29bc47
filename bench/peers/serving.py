"""Serves a plain application as the service itself is served: the same server, the same options."""

from starlette.types import ASGIApp

from credenza.serving import new_server
from credenza.settings import Settings


async def serve(app: ASGIApp, port: int) -> None:
    """Serve on loopback until the process is ended."""
    await new_server(app, Settings(), port).serve()
