"""Large bodies, in parts that also a slow client takes in time.

Must not know what is in them.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

from fastapi import Response
from starlette.types import Receive, Scope, Send

from credenza.web.answers import Answer, Headers

PART_BYTES: Final = 256 * 1024


def in_parts(body: bytes, headers: Headers) -> Response:
    """Answer with a body; a large one is sent in parts."""
    answer = Answer(200, headers, body)
    return answer if len(body) <= PART_BYTES else Parts(answer.raw_headers, body, _nothing())


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


class Parts(Response):
    """Sends a body and then what `more` yields; however it ends, `more` is closed.

    Starlette's StreamingResponse leaves a cycle of references where the client goes away: what it
    was to send would stay until a collection of garbage, which comes seldom here.
    """

    def __init__(self, headers: Headers, body: bytes, more: AsyncGenerator[bytes, None]) -> None:
        super().__init__()
        self.raw_headers = headers
        self.body = body
        self._more = more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all, unless the client goes away first."""
        async with aclosing(self._more):
            sending = asyncio.create_task(self._send(send))
            leaving = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                sending.cancel()
                leaving.cancel()
                await asyncio.wait((sending, leaving))
                del sending, leaving  # an exception knows this frame, and a task its exception

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        for part in _cut(bytes(self.body)):
            await send(part)
        async for body in self._more:
            for part in _cut(body):
                await send(part)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    """Wait until the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _cut(body: bytes) -> Iterator[dict[str, object]]:
    for at in range(0, len(body), PART_BYTES):
        part = body[at : at + PART_BYTES]
        yield {"type": "http.response.body", "body": part, "more_body": True}
