"""Look-ups under way: who asks for the same key meanwhile waits for the same answer.

A flight is also the process's own lease: once it is detached, what it brings is not kept, and who
asks from then on starts another one.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal, NamedTuple

from credenza.cache.entries import Entry, Key

Outcome = Literal["hit-near", "hit-redis", "miss", "bypass"]


class Found(NamedTuple):
    """What a look-up brings: the entry, where from, and for how many seconds it is kept.

    No entry: there is no such row. No `ttl`: it is not known to be kept.
    """

    entry: Entry | None
    outcome: Outcome
    ttl: float | None = None


class Flight:
    """One look-up; `stands` until a write has overtaken it."""

    def __init__(self) -> None:
        self.stands = True


class Flights:
    """The look-ups under way by key."""

    def __init__(self) -> None:
        self._under_way: dict[Key, tuple[Flight, asyncio.Task[Found]]] = {}

    async def join(self, key: Key, begin: Callable[[Flight], Coroutine[Any, Any, Found]]) -> Found:
        """Return what the key's flight brings, which begins now if there is none.

        It goes on when who waits for it is cancelled, because others may wait as well.
        """
        if key not in self._under_way:
            flight: Final = Flight()
            task = asyncio.create_task(begin(flight))
            self._under_way[key] = (flight, task)
            task.add_done_callback(lambda done: self._end(key, flight, done))
        return await asyncio.shield(self._under_way[key][1])

    def detach(self, key: Key) -> None:
        """Let go of the key's flight, because what it brings may be old by now."""
        found = self._under_way.pop(key, None)
        if found is not None:
            found[0].stands = False

    def detach_all(self) -> None:
        """Let go of all."""
        for key in list(self._under_way):
            self.detach(key)

    def _end(self, key: Key, flight: Flight, done: asyncio.Task[Found]) -> None:
        if not done.cancelled():
            done.exception()  # who waited has seen it; perhaps nobody did
        if key in self._under_way and self._under_way[key][0] is flight:
            del self._under_way[key]
