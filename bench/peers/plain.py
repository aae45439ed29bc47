"""The least that reads from PostgreSQL: plain ASGI and asyncpg, one SELECT a request.

Run as `python -m bench.peers.plain PORT DATABASE_URL`. It answers `GET /corpus/{id}` from
the service's own tables with the text of the JSON, unchecked and uncached.
"""

import asyncio
import sys

import asyncpg
import uvloop
from starlette.types import Receive, Scope, Send

from bench.peers.serving import serve

SELECT = "SELECT data::text FROM documents WHERE collection = 'corpus' AND id = $1"


class App:
    """The application; `pool` is open while it serves."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        rows = await self._pool.fetch(SELECT, scope["path"].removeprefix("/corpus/"))
        body = rows[0]["data"].encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def keep(_: asyncpg.Connection) -> None:
    """Leave a session as it is, as the service does."""


async def main() -> None:
    """Serve until the process is ended."""
    async with asyncpg.create_pool(sys.argv[2], min_size=10, max_size=10, reset=keep) as pool:
        await serve(App(pool), int(sys.argv[1]))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
