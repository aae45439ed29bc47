"""A small HTTP/1.1 client: cheap enough for thousands of connections, and exact about answers.

An answer is whole or it is none; a client that repeats by itself would hide the difference.
"""

import asyncio
import json
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

LOST = (OSError, EOFError)
"""What a request raises that got no whole answer."""

WITHOUT_BODY = (204, 304)


class Answer(NamedTuple):
    """A whole answer; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body as a JSON value."""
        return json.loads(self.body)

    @property
    def says_close(self) -> bool:
        """Whether the server will not answer on this connection any more."""
        return "close" in self.headers.get("connection", "").lower()


class Connection:
    """One connection; requests follow each other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str, *, source: str | None = None) -> Self:
        """Connect to a service's address, from an address of this machine where it matters."""
        parts = urlsplit(url)
        local = None if source is None else (source, 0)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port, local_addr=local))

    @property
    def port(self) -> int:
        """The port of this end."""
        port: int = self._writer.get_extra_info("sockname")[1]
        return port

    async def ask(
        self, method: str, path: str, body: bytes = b"", type_: str = "application/json"
    ) -> Answer:
        """Send a request and return its answer; one of LOST where there is no whole answer."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        if body:
            lines += [f"Content-Type: {type_}", f"Content-Length: {len(body)}"]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        return await self.answer()

    def send(self, part: bytes) -> None:
        """Send a part of a request as it is."""
        self._writer.write(part)

    async def answer(self) -> Answer:
        """Return the next answer."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        status = int(first.split()[1])
        length = 0 if status in WITHOUT_BODY else int(headers["content-length"])
        return Answer(status, headers, await self._reader.readexactly(length))

    def close(self) -> None:
        """Close it at once."""
        self._writer.transport.abort()


class Tally:
    """A count that can be waited for, by one at a time."""

    def __init__(self) -> None:
        self.count = self._goal = 0
        self._reached = asyncio.Event()

    def add(self, size: int = 1) -> None:
        """Count so many more."""
        self.count += size
        if self.count >= self._goal:
            self._reached.set()

    async def reach(self, more: int) -> None:
        """Wait until so many more are counted."""
        self._goal = self.count + more
        self._reached.clear()
        await self._reached.wait()
