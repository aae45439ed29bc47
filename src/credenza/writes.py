"""Writes run to their end, whatever becomes of who waits for them.

A commit of which the cache was never told would leave an older version there, so a client that goes
away, or a time-out, must not come between the two. Must not know what is written.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

SETTLE_SECONDS: Final = 10.0


class Writes:
    """The writes of one process that are under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, write: Coroutine[Any, Any, T]) -> T:
        """Run a write and return what it returns; cancelling this does not cancel the write."""
        task = asyncio.create_task(write)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def settle(self) -> None:
        """Wait for those whose clients have gone away, as long as a statement may take."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SETTLE_SECONDS)
