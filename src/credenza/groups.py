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
    raises, each of them gets. With `about`, no two items of a group are about the same.
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
        """Run groups until nobody waits; keys take turns."""
        try:
            while self._waiting:
                key = next(iter(self._waiting))
                members, others = self._divided(self._waiting.pop(key))
                if others:
                    self._waiting[key] = others
                await self._serve(key, members)
        finally:
            self._free += 1

    def _divided(
        self, waiting: list[Member[Item, Outcome]]
    ) -> tuple[list[Member[Item, Outcome]], list[Member[Item, Outcome]]]:
        """Return the members of the next group, and who has to wait for another one."""
        if self._about is None:
            return waiting[:MAX_MEMBERS], waiting[MAX_MEMBERS:]
        members: dict[Hashable, Member[Item, Outcome]] = {}
        others = []
        for member in waiting:
            about = self._about(member[0])
            if about in members or len(members) == MAX_MEMBERS:
                others.append(member)
            else:
                members[about] = member
        return list(members.values()), others

    async def _serve(self, key: Key, members: Sequence[Member[Item, Outcome]]) -> None:
        asked = [member for member in members if not member[1].done()]
        if not asked:
            return
        outcomes: Sequence[Outcome | Exception]
        try:
            outcomes = await self._run(key, [item for item, _ in asked])
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            outcomes = [error] * len(asked)
        for (_, waiting), outcome in zip(asked, outcomes, strict=True):
            if waiting.done():
                continue
            if isinstance(outcome, Exception):
                waiting.set_exception(outcome)
            else:
                waiting.set_result(outcome)
