"""Groups: who comes while a statement is under way goes with the next one.

The first goes at once, so that an idle service waits for nothing; the busier it is, the more
share a statement. Must not know what is done for a group.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

MAX_MEMBERS: Final = 128
"""Members of one group at the most."""


class Groups(Generic[Item, Outcome]):
    """What is asked for, in groups of which `parallel` are under way at most.

    `run` gets the items of a group, in the order in which they came, and returns an outcome for
    each; what it raises, each of them gets.
    """

    def __init__(
        self, run: Callable[[list[Item]], Awaitable[Sequence[Outcome]]], *, parallel: int
    ) -> None:
        self._run = run
        self._free = parallel
        self._waiting: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def join(self, item: Item) -> Outcome:
        """Return the outcome for an item; who stops waiting leaves its group as it is."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, outcome))
        if self._free:
            self._free -= 1
            # In a context of its own: it is nobody's request.
            task = asyncio.create_task(self._work(), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await outcome

    async def _work(self) -> None:
        """Run groups until nobody waits."""
        try:
            while self._waiting:
                number = min(len(self._waiting), MAX_MEMBERS)
                await self._serve([self._waiting.popleft() for _ in range(number)])
        finally:
            self._free += 1

    async def _serve(self, members: list[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        asked = [member for member in members if not member[1].done()]
        if not asked:
            return
        try:
            outcomes = await self._run([item for item, _ in asked])
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            for _, waiting in asked:
                if not waiting.done():
                    waiting.set_exception(error)
            return
        for (_, waiting), outcome in zip(asked, outcomes, strict=True):
            if not waiting.done():
                waiting.set_result(outcome)
