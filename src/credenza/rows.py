"""What the store takes and gives: rows, lines of an import, and the clock that versions come from.

Must not know SQL or connections.
"""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from credenza import wire


class Clock:
    """The writer's clock, in microseconds since 1970; it never goes back or stands still."""

    def __init__(self) -> None:
        self._last = 0

    def now(self) -> int:
        """Return a number of microseconds that this process has not returned before."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last


class Row(NamedTuple):
    """A document as stored; `data` is JSON text, None for a tombstone."""

    incarnation: int
    id: str
    version: int
    created_at: datetime
    updated_at: datetime
    data: str | None

    def document(self) -> wire.StoredDocument:
        """Return its representation; only for a row that is not a tombstone."""
        return wire.StoredDocument.build(
            self.id, self.version, self.created_at, self.updated_at, self.data or "null"
        )


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """A collection as stored; `settings` is JSON text, None where it was deleted."""

    incarnation: int
    version: int
    created_at: datetime
    updated_at: datetime
    settings: str | None


class Line(NamedTuple):
    """One document of an import: id, JSON text and, where it is kept, the time of creation."""

    id: str
    data: str
    created_at: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """What became of an import's chunk: documents written, and the ids that had been there.

    `incarnation` is that of the collection; None where nothing was written.
    """

    written: int
    replaced: list[str]
    incarnation: int | None = None


class ExistsError(Exception):
    """An import met documents that it may not replace; `ids` names them."""

    def __init__(self, ids: set[str]) -> None:
        super().__init__(f"{len(ids)} documents exist")
        self.ids = ids
