"""A slow network: passes TCP on, each part late by a time of its own, in order.

Races that need a thousandth of a second on loopback happen all the time behind it.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
