"""Rows that are locked until their transaction ends, so that what is decided from them stays true.

Must not know what is decided.
"""

from datetime import datetime

from credenza.database import Connection
from credenza.rows import CollectionRow, Row


class Locked:
    """A document whose row is locked until the transaction ends."""

    def __init__(
        self,
        connection: Connection,
        collection: str,
        row: Row,
        stamp: tuple[int, datetime],
        slot: int,
    ) -> None:
        self.row = row
        self._slot = slot
        self._connection = connection
        self._collection = collection
        self._stamp = stamp

    async def replace(self, data: str) -> Row:
        """Store another value for it."""
        rows = await self._connection.fetch(
            *("replace_document", self._collection, self.row.id, *self._stamp, data),
            *(None, None, self._slot),
        )
        return Row(id=self.row.id, **rows[0])


class LockedCollection:
    """A collection whose row is locked until the transaction ends."""

    def __init__(
        self,
        connection: Connection,
        collection: str,
        row: CollectionRow,
        stamp: tuple[int, datetime],
    ) -> None:
        self.row = row
        self._connection = connection
        self._collection = collection
        self._stamp = stamp

    async def replace(self, settings: str) -> CollectionRow:
        """Store other settings for it."""
        rows = await self._connection.fetch(
            "put_collection", self._collection, *self._stamp, settings, None, None, None
        )
        return CollectionRow(**rows[0])
