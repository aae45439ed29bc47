"""Keys that Redis still has to be told of; until then they are read past the cache.

Must not know how it is told. Bounded: past that, all keys are owed at once.
"""

import time
from typing import Final

from credenza.cache.entries import Key

MAX_DEBTS: Final = 10_000
AGAIN_SECONDS: Final = 1.0
"""How often a key is paid for whose write may still be committed."""


class Debts:
    """What is owed, each key until a moment (monotonic); it is paid for again until then."""

    def __init__(self) -> None:
        self.overflowed = False
        self._until: dict[Key, float] = {}
        self._next: dict[Key, float] = {}
        self._all_until = 0.0

    def __contains__(self, key: Key) -> bool:
        return key in self._until

    def __bool__(self) -> bool:
        return self.overflowed or bool(self._until)

    def add(self, key: Key, *, for_seconds: float = 0.0) -> None:
        """Owe a key; for so long its value may still change without notice."""
        until = time.monotonic() + for_seconds
        if self.overflowed or (len(self._until) >= MAX_DEBTS and key not in self._until):
            self._all_until = max(until, self._all_until, *self._until.values())
            self.overflowed = True
            self._until.clear()
            self._next.clear()
            return
        self._until[key] = max(until, self._until.get(key, 0.0))
        self._next.pop(key, None)

    def due(self) -> list[Key]:
        """Return the keys that are to be paid for now."""
        now = time.monotonic()
        return [key for key in self._until if self._next.get(key, 0.0) <= now]

    def paid(self, key: Key, began: float) -> None:
        """Strike a key out if its moment lay before the payment began, else let it come again."""
        if self._until.get(key, 0.0) <= began:
            self._until.pop(key, None)
            self._next.pop(key, None)
        else:
            self._next[key] = began + AGAIN_SECONDS

    def all_due(self) -> bool:
        """Return whether everything is owed, and may be paid for."""
        return self.overflowed and time.monotonic() >= self._all_until

    def all_paid(self, began: float) -> None:
        """Strike out everything, unless something was added since the payment began."""
        self.overflowed = self._all_until > began
