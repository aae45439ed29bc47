"""The ceiling: the same server, and an application that answers every request with the same bytes.

Run as `python -m bench.peers.constant PORT`.
"""

import asyncio
import sys
from typing import Final

import uvloop
from starlette.types import Receive, Scope, Send

from bench.peers.serving import serve

BODY: Final = b'{"id":"d1","version":1,"data":"' + b"x" * 300 + b'"}'
HEADERS: Final = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(BODY)).encode()),
]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def main() -> None:
    """Serve until the process is ended."""
    await serve(app, int(sys.argv[1]))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
