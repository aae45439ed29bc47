"""Groups: who comes while a statement is under way goes with the next one.

The first goes at once, so that an idle service waits for nothing; the busier it is, the more
share a statement. Must not know what is done for a group.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Final, Generic, TypeAlias, TypeVar

from credenza import errors, tracing
from credenza.telemetry import GroupSeries

Key = TypeVar("Key")
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

MAX_MEMBERS: Final = 128
"""Members of one group at the most."""

MAX_WEIGHT: Final = 1024 * 1024
"""What the members of one group weigh at the most, together; one alone may weigh more."""

MAX_WAITING: Final = 5_000
"""Who may wait for a group to begin; past that, one is sent away."""

Member: TypeAlias = tuple[Item, asyncio.Future[Outcome], tracing.Span | None]
"""What is asked for, who waits for it, and the span of who asks."""


class Groups(Generic[Key, Item, Outcome]):
    """What is asked for, in groups of one key, of which `parallel` are under way at the most.

    `run` gets a key and the items of a group, in the order in which they came, and returns an
    outcome for each. One that is an exception is raised to who waits for it; what `run` itself
    raises, each of them gets.

    With `subject`, no two items of the same subject are under way at once, and those who wait for
    one get their turns in the order in which they came. `weight` tells what an item adds to what
    its group takes; heavy ones would take so long together that all of them fail.
    """

    def __init__(
        self,
        run: Callable[[Key, Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]],
        *,
        parallel: int,
        series: GroupSeries,
        subject: Callable[[Item], Hashable] | None = None,
        weight: Callable[[Item], int] | None = None,
    ) -> None:
        self._run = run
        self._free = parallel
        self._subject = subject
        self._weight = weight
        self._busy: set[tuple[Key, Hashable]] = set()
        self._waiting: dict[Key, list[Member[Item, Outcome]]] = {}
        self._number = 0
        self._kind = series.kind
        self._members = series.members
        self._refused = series.refused
        series.waiting = lambda: self._number
        self._tasks: set[asyncio.Task[None]] = set()

    async def join(self, key: Key, item: Item) -> Outcome:
        """Return the outcome for an item; who stops waiting leaves its group as it is.

        Overloaded where too many wait.
        """
        if self._number >= MAX_WAITING:
            self._refused.inc()
            raise errors.Overloaded(f"{self._number} wait for the database.")
        self._number += 1
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((item, outcome, tracing.current()))
        if self._free:
            self._free -= 1
            # In a context of its own: it is nobody's request.
            task = asyncio.create_task(self._work(), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await outcome

    async def _work(self) -> None:
        """Run groups until nobody waits who may go; keys take turns."""
        try:
            while (group := self._next()) is not None:
                key, members = group
                try:
                    await self._serve(key, members)
                finally:
                    self._busy.difference_update(self._subjects(key, members))
        finally:
            self._free += 1

    def _next(self) -> tuple[Key, list[Member[Item, Outcome]]] | None:
        for key in list(self._waiting):
            members, waiting = self._chosen(key, self._waiting.pop(key))
            if waiting:
                self._waiting[key] = waiting
            if members:
                self._number -= len(members)
                self._busy.update(self._subjects(key, members))
                return key, members
        return None

    def _chosen(
        self, key: Key, waiting: list[Member[Item, Outcome]]
    ) -> tuple[list[Member[Item, Outcome]], list[Member[Item, Outcome]]]:
        """Return who goes now, and who stays: whose subject is under way, or goes with another."""
        if self._subject is None and self._weight is None:
            return waiting[:MAX_MEMBERS], waiting[MAX_MEMBERS:]
        taken: set[Hashable] = set()
        members: list[Member[Item, Outcome]] = []
        left: list[Member[Item, Outcome]] = []
        room = MAX_WEIGHT
        for member in waiting:
            subject = None if self._subject is None else self._subject(member[0])
            weight = 0 if self._weight is None else self._weight(member[0])
            has_room = len(members) < MAX_MEMBERS and (weight <= room or not members)
            if has_room and not (subject in taken or (key, subject) in self._busy):
                members.append(member)
                room -= weight
            else:
                left.append(member)
            if subject is not None:
                taken.add(subject)
        return members, left

    def _subjects(
        self, key: Key, members: list[Member[Item, Outcome]]
    ) -> list[tuple[Key, Hashable]]:
        if self._subject is None:
            return []
        return [(key, self._subject(item)) for item, _, _ in members]

    async def _serve(self, key: Key, members: Sequence[Member[Item, Outcome]]) -> None:
        asked = [member for member in members if not member[1].done()]
        if not asked:
            return
        self._members.observe(len(asked))
        outcomes: Sequence[Outcome | Exception]
        spans = [span for _, _, span in asked if span is not None]
        attributes = {"credenza.group.members": len(asked)}
        try:
            with tracing.shared(f"group {self._kind}", attributes, spans):
                outcomes = await self._run(key, [item for item, _, _ in asked])
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            outcomes = [error] * len(asked)
        for (_, waiting, _), outcome in zip(asked, outcomes, strict=True):
            if waiting.done():
                continue
            if isinstance(outcome, Exception):
                waiting.set_exception(outcome)
            else:
                waiting.set_result(outcome)
