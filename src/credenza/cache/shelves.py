"""What was made of whole collections, inside the process: kept until anything in them changes.

Must not know what it is, nor Redis. It is used between two awaits only, so that each method is
atomic. A shelf is the lease of who fills it: one that was taken before a change stands no more, so
that what was read before the change is not kept after it.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final

from prometheus_client import Gauge

OVERHEAD_BYTES: Final = 1_000
"""What is reckoned for a thing beside its bytes: its name, tuples and dictionaries."""

MAX_SHELVES: Final = 10_000


class Shelf:
    """What is kept of one collection as it is now."""

    __slots__ = ("collection", "names")

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self.names: set[Hashable] = set()


class Shelves:
    """Shelves by collection, bounded in bytes; what was not asked for longest leaves first."""

    def __init__(self, max_bytes: int, gauge: Gauge) -> None:
        self._max_bytes = max_bytes
        self._gauge = gauge
        self._bytes = 0
        self._shelves: dict[str, Shelf] = {}
        self._things: OrderedDict[tuple[str, Hashable], tuple[Any, int, float]] = OrderedDict()

    def take(self, collection: str) -> Shelf:
        """Return the collection's shelf; it stands until `drop`."""
        shelf = self._shelves.get(collection)
        if shelf is None:
            if len(self._shelves) >= MAX_SHELVES:
                self.clear()
            shelf = self._shelves[collection] = Shelf(collection)
        return shelf

    def get(self, shelf: Shelf, name: Hashable) -> tuple[Any, float] | None:
        """Return the thing of that name and its seconds to live; None where there is none."""
        found = self._things.get((shelf.collection, name))
        if found is None or name not in shelf.names:
            return None
        thing, _, until = found
        left = until - time.monotonic()
        if left <= 0:
            self._remove(shelf, name)
            return None
        self._things.move_to_end((shelf.collection, name))
        return thing, left

    def keep(self, shelf: Shelf, name: Hashable, thing: Any, size: int, ttl: float) -> None:
        """Keep a thing of `size` bytes for `ttl` seconds, if the shelf still stands."""
        size += OVERHEAD_BYTES
        if self._shelves.get(shelf.collection) is not shelf or size > self._max_bytes:
            return
        if name in shelf.names:
            self._remove(shelf, name)
        shelf.names.add(name)
        self._things[shelf.collection, name] = (thing, size, time.monotonic() + ttl)
        self._grow(size)
        while self._bytes > self._max_bytes:
            collection, oldest = next(iter(self._things))
            self._remove(self._shelves[collection], oldest)

    def drop(self, collection: str) -> None:
        """Let go of all that is kept of a collection, and of what is about to be."""
        shelf = self._shelves.pop(collection, None)
        if shelf is not None:
            for name in list(shelf.names):
                self._remove(shelf, name)

    def clear(self) -> None:
        """Let go of everything."""
        self._shelves.clear()
        self._things.clear()
        self._grow(-self._bytes)

    def _remove(self, shelf: Shelf, name: Hashable) -> None:
        shelf.names.discard(name)
        self._grow(-self._things.pop((shelf.collection, name))[1])

    def _grow(self, size: int) -> None:
        self._bytes += size
        self._gauge.set(self._bytes)
