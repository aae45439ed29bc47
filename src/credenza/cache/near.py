"""The cache inside the process: entries by key, bounded in bytes and in time.

Must not know Redis. It is used between two awaits only, so that each method is atomic.
"""

import time
from collections import OrderedDict
from typing import Final

from prometheus_client import Gauge

from credenza.cache.entries import Entry, Key

OVERHEAD_BYTES: Final = 1_500
"""What an entry costs beside its bytes: key, ordered dictionary, and most of all its note, which is
an answer's headers under the path that it is asked for by (measured with CPython)."""


CHANCES: Final = 100
"""Second chances at once: a new entry's way in takes no longer, whatever was asked for."""


class Near:
    """Entries, of which those leave first that came first and were not asked for since.

    One that was asked for has a second chance (the CLOCK algorithm), so that a read only sets a
    flag.
    """

    def __init__(self, max_bytes: int, gauge: Gauge) -> None:
        self._max_bytes = max_bytes
        self._gauge = gauge
        self._bytes = 0
        self._entries: OrderedDict[Key, Entry] = OrderedDict()

    def get(self, key: Key) -> Entry | None:
        """Return the entry; None where there is none any more."""
        found = self._entries.get(key)
        if found is None:
            return None
        if found.until <= time.monotonic():
            self.drop(key)
            return None
        found.asked = True
        return found

    def fill(self, key: Key, entry: Entry, ttl: float) -> None:
        """Keep an entry for `ttl` seconds, unless a newer one is there."""
        found = self._entries.get(key)
        if found is None or found.version < entry.version:
            self.drop(key)
            self._add(key, entry, ttl)

    def replace(self, key: Key, entry: Entry, ttl: float) -> None:
        """Replace an older entry; where there is none, it may have been a newer one that left."""
        found = self._entries.get(key)
        if found is not None and found.version < entry.version:
            self.drop(key)
            self._add(key, entry, ttl)

    def drop_older(self, key: Key, version: int) -> None:
        """Drop an entry that is older than a version."""
        found = self._entries.get(key)
        if found is not None and found.version < version:
            self.drop(key)

    def drop(self, key: Key) -> None:
        """Drop an entry, whatever its version."""
        found = self._entries.pop(key, None)
        if found is not None:
            self._let_go(found)

    def clear(self) -> None:
        """Drop everything."""
        for entry in self._entries.values():
            entry.until, entry.note = 0.0, None
        self._entries.clear()
        self._grow(-self._bytes)

    def _add(self, key: Key, entry: Entry, ttl: float) -> None:
        if _size(entry) > self._max_bytes:
            return
        entry.until = time.monotonic() + ttl
        self._entries[key] = entry
        self._grow(_size(entry))
        chances = CHANCES
        while self._bytes > self._max_bytes:
            oldest, entry = self._entries.popitem(last=False)
            if entry.asked and chances:
                chances -= 1
                entry.asked = False
                self._entries[oldest] = entry
            else:
                self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        entry.until, entry.note = 0.0, None
        self._grow(-_size(entry))

    def _grow(self, size: int) -> None:
        self._bytes += size
        self._gauge.set(self._bytes)


def _size(entry: Entry) -> int:
    return OVERHEAD_BYTES + len(entry.body or b"")
