"""One client that reads or sends many documents: a walk, an export, an import.

Must not know what answers. It is Python, and may be: it hands bytes on and waits, so that the time
is the server's.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.load import Ask, Measured

TIMEOUT: Final = 300.0
PART: Final = 1 << 20

Page = tuple[int, str | None]
"""How many documents a page has, and the path of the next one."""

Paged = Callable[[HTTPResponse, bytes], Page]
"""Reads the answer with a page, and its body."""


class Client:
    """A client with one connection that stays open."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection

    def ask(self, ask: Ask) -> tuple[HTTPResponse, bytes]:
        """Send a request and return its answer with the body; an error ends the benchmark."""
        self._connection.request(ask.method, ask.path, ask.body.encode() or None, ask.headers)
        answer = self._connection.getresponse()
        body = answer.read()
        _refuse_errors(ask, answer, body)
        return answer, body

    def send(self, ask: Ask, file: Path) -> None:
        """Send a request with a file as its body."""
        length = {"Content-Length": str(file.stat().st_size)}
        with file.open("rb") as body:
            self._connection.request(ask.method, ask.path, body, ask.headers | length)
        answer = self._connection.getresponse()
        _refuse_errors(ask, answer, answer.read())

    def receive(self, ask: Ask) -> int:
        """Send a request, and return how many bytes its answer has, keeping none of them."""
        self._connection.request(ask.method, ask.path, headers=ask.headers)
        answer = self._connection.getresponse()
        total = 0
        while part := answer.read(PART):
            total += len(part)
        _refuse_errors(ask, answer, b"")
        return total


def local(url: str) -> str:
    """Return the path of a URL with its query."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


@contextmanager
def client(address: str) -> Iterator[Client]:
    """Give a client of an address."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=TIMEOUT)
    try:
        yield Client(connection)
    finally:
        connection.close()


def walk(address: str, first: str, paged: Paged, *, patience: float) -> Measured:
    """Follow pages to the last one, or for so many seconds; the rate is in documents."""
    path: str | None = first
    documents = size = 0
    begun = time.monotonic()
    with client(address) as one:
        while path is not None and time.monotonic() - begun < patience:
            answer, body = one.ask(Ask("GET", path, {}))
            number, path = paged(answer, body)
            documents += number
            size += len(body)
    return _measured(documents, size, begun)


def export(address: str, ask: Ask, documents: int) -> Measured:
    """Read an export, which has so many documents."""
    begun = time.monotonic()
    with client(address) as one:
        size = one.receive(ask)
    return _measured(documents, size, begun)


def stream(address: str, ask: Ask, file: Path, documents: int) -> Measured:
    """Send a file of so many documents in one request."""
    begun = time.monotonic()
    with client(address) as one:
        one.send(ask, file)
    return _measured(documents, file.stat().st_size, begun)


def batches(address: str, asks: Iterable[Ask], texts: list[str]) -> Measured:
    """Send these documents in requests of many; what the requests are is put together before."""
    ready = list(asks)
    size = sum(len(text) + 1 for text in texts)
    begun = time.monotonic()
    with client(address) as one:
        for ask in ready:
            one.ask(ask)
    return _measured(len(texts), size, begun)


def _measured(documents: int, size: int, begun: float) -> Measured:
    seconds = time.monotonic() - begun
    return Measured(documents / seconds, megabytes=size / seconds / 1e6)


def _refuse_errors(ask: Ask, answer: HTTPResponse, body: bytes) -> None:
    if answer.status >= 400:
        shown = body[:500].decode(errors="replace")
        raise SystemExit(f"bench: {ask.method} {ask.path[:80]} gave {answer.status}: {shown}")
