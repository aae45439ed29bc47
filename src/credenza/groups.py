"""Groups: who comes while a statement is under way goes with the next one.

The first goes at once, so that an idle service waits for nothing; the busier it is, the more
share a statement. Must not know what is done for a group.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Final, Generic, TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

Member = tuple[Item, asyncio.Future[Outcome]]
"""What is asked for, and where its outcome is waited for."""

MAX_MEMBERS: Final = 128
"""Members of one group at the most."""


class Groups(Generic[Key, Item, Outcome]):
    """What is asked for, in groups of one key, of which `parallel` are under way at the most.

    `run` gets a key and the items of a group, in the order in which they came, and returns an
    outcome for each. One that is an exception is raised to who waits for it; what `run` itself
    raises, each of them gets. With `about`, no two that are under way are about the same: they
    follow each other in the order in which they came.
    """

    def __init__(
        self,
        run: Callable[[Key, Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]],
        *,
        parallel: int,
        about: Callable[[Item], Hashable] | None = None,
    ) -> None:
        self._run = run
        self._about = about
        self._free = parallel
        self._waiting: dict[Key, list[Member[Item, Outcome]]] = {}
        self._under_way: set[tuple[Key, Hashable]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def join(self, key: Key, item: Item) -> Outcome:
        """Return the outcome for an item; who stops waiting leaves its group as it is."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((item, outcome))
        if self._free:
            self._free -= 1
            # In a context of its own: it is nobody's request.
            task = asyncio.create_task(self._work(), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await outcome

    async def _work(self) -> None:
        """Run groups until nobody waits whose turn it is; keys take turns."""
        try:
            while (group := self._next()) is not None:
                await self._serve(*group)
        finally:
            self._free += 1

    def _next(self) -> tuple[Key, list[Member[Item, Outcome]]] | None:
        for key, waiting in self._waiting.items():
            members, others = self._divided(key, waiting)
            if members:
                del self._waiting[key]
                if others:
                    self._waiting[key] = others
                return key, members
        return None

    def _divided(
        self, key: Key, waiting: list[Member[Item, Outcome]]
    ) -> tuple[list[Member[Item, Outcome]], list[Member[Item, Outcome]]]:
        """Return the members of the next group, and who has to wait for another one."""
        if self._about is None:
            return waiting[:MAX_MEMBERS], waiting[MAX_MEMBERS:]
        members: list[Member[Item, Outcome]] = []
        others: list[Member[Item, Outcome]] = []
        for member in waiting:
            about = (key, self._about(member[0]))
            if about in self._under_way or len(members) == MAX_MEMBERS:
                others.append(member)
            else:
                self._under_way.add(about)
                members.append(member)
        return members, others

    async def _serve(self, key: Key, members: Sequence[Member[Item, Outcome]]) -> None:
        asked = [member for member in members if not member[1].done()]
        outcomes: Sequence[Outcome | Exception]
        try:
            outcomes = await self._run(key, [item for item, _ in asked]) if asked else []
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            outcomes = [error] * len(asked)
        if self._about is not None:
            self._under_way.difference_update((key, self._about(item)) for item, _ in members)
        for (_, waiting), outcome in zip(asked, outcomes, strict=True):
            if waiting.done():
                continue
            if isinstance(outcome, Exception):
                waiting.set_exception(outcome)
            else:
                waiting.set_result(outcome)
