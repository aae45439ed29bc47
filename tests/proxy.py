"""Bad networks: one that is slow at random, and one that loses the answer to a statement.

Races that need a thousandth of a second on loopback happen all the time behind the slow one.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

OFTEN_SECONDS: Final = 0.001
SELDOM_SECONDS: Final = 0.04
SELDOM: Final = 0.15
"""The part of all parts that are late by up to SELDOM_SECONDS."""


@asynccontextmanager
async def slow(port: int) -> AsyncIterator[int]:
    """Give a port of loopback that leads to another one, slowly."""
    chance = random.Random(port)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await _connect(reader, writer, port, chance)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports let go of their sockets in the next turn


async def _connect(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, chance: random.Random
) -> None:
    """Pass on both ways until one side has gone; then the other has to go as well."""
    opened = [writer]
    try:
        there, answer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(answer)
        await asyncio.gather(_pass_on(reader, answer, chance), _pass_on(there, writer, chance))
    except (OSError, EOFError, asyncio.CancelledError):
        pass  # its end; the stream's own callback would report a cancelled task as a fault
    finally:
        for each in opened:
            each.transport.abort()


async def _pass_on(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, chance: random.Random
) -> None:
    while part := await source.read(65536):
        limit = SELDOM_SECONDS if chance.random() < SELDOM else OFTEN_SECONDS
        await asyncio.sleep(chance.uniform(0, limit))
        target.write(part)
        await target.drain()
    raise EOFError


class Cutter:
    """Passes on until a text comes by; what asked for it never hears the answer."""

    def __init__(self, port: int) -> None:
        self._there = port
        self._text = b""
        self._then: Callable[[], None] | None = None
        self.port = 0

    def cut_after(self, text: bytes, then: Callable[[], None] | None = None) -> None:
        """Lose the answer to the next part that has the text; `then` is done before the cut."""
        self._text, self._then = text, then

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        answers, target = await asyncio.open_connection("127.0.0.1", self._there)
        back = asyncio.create_task(_copy(answers, writer))
        is_due = False
        try:
            while part := await reader.read(65536):
                is_seen = bool(self._text) and self._text in part
                if is_seen:
                    self._text = b""
                # The simple protocol runs what it names; else a Bind and Execute follow.
                if is_due or (is_seen and part.startswith(b"Q")):
                    break
                is_due = is_seen
                target.write(part)
            if part:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
                target.write(part)
                rest = asyncio.create_task(_copy(reader, target))  # a Sync may come by itself
                await answers.read(65536)  # now it is done
                rest.cancel()
                if self._then is not None:
                    await asyncio.to_thread(self._then)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            back.cancel()
            for each in (writer, target):
                each.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await source.read(65536):
            target.write(part)
        target.transport.abort()


@asynccontextmanager
async def cutting(port: int) -> AsyncIterator[Cutter]:
    """Give a way to a port of loopback that can be cut at a statement."""
    cutter = Cutter(port)
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    cutter.port = int(server.sockets[0].getsockname()[1])
    try:
        yield cutter
    finally:
        server.close()
