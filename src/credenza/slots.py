"""Change slots: which of its collection's slots a write moves.

The row of a slot is locked until its writer has committed, so that writes of one slot follow each
other. Must not know SQL.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

SLOTS: Final = 16
"""Slots of a collection, from 0. More would let more writers commit at once, and each reading of
the state reads them all."""


class Slots:
    """The slots, as one process lends them to its writes."""

    def __init__(self) -> None:
        # Each process prefers others, so that few processes meet in one.
        self._order = random.sample(range(SLOTS), SLOTS)
        self._writes = [0] * SLOTS

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[int]:
        """Lend the slot that the fewest writes of this process have, until their end."""
        slot = min(self._order, key=self._writes.__getitem__)
        self._writes[slot] += 1
        try:
            yield slot
        finally:
            self._writes[slot] -= 1
