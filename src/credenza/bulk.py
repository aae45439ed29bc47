"""Many documents in few statements: the chunks of imports, and the cursor of an export.

Must not know HTTP, the cache, or how connections are made.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Final

import asyncpg

from credenza import errors, wire
from credenza.database import Connection, Database
from credenza.query import Statement
from credenza.rows import Chunk, Clock, ExistsError, Line
from credenza.slots import Slots

EXPORT_ROWS: Final = 256
"""Rows of an export that are read at once."""

EXPORT_BYTES: Final = 64 * 1024
"""Bytes of data from which on a row is read by itself."""


class Export:
    """An export under way: a snapshot, and a place in the order of its rows."""

    def __init__(self, connection: Connection, collection: str, texts: dict[str, str]) -> None:
        self._connection = connection
        self._collection = collection
        self._texts = texts

    async def read(self) -> list[asyncpg.Record]:
        """Return the next rows, none at the end; `data` is None where it has to be read alone."""
        return await self._connection.send("read_export", self._texts["read_export"])

    async def read_large(self, statement: Statement) -> str:
        """Return the data of one document as this export sees it."""
        text = self._texts["read_large"].format(**statement.fragments)
        rows = await self._connection.send(
            "read_large", text, self._collection, *statement.arguments
        )
        return str(rows[0]["data"])


class Bulk:
    """The documents of one database, many at a time."""

    def __init__(self, database: Database, clock: Clock, slots: Slots) -> None:
        self._database = database
        self._slots = slots
        self._clock = clock

    async def store_chunk(
        self, collection: str, lines: Sequence[Line], *, replace: bool, exact: bool
    ) -> Chunk | None:
        """Store a chunk at once, in the order of `lines`; None: there is no such collection.

        With `exact`, ExistsError and nothing stored unless every line is.
        """
        version = self._clock.now()
        ids, texts, times = zip(*lines, strict=True)
        async with (
            self._database.connection(blames=errors.UnrepresentableJson, writes=True) as connection,
            self._slots.lent() as slot,
        ):
            # A statement is a transaction by itself, unless something is decided after it.
            async with connection.raw.transaction() if exact else nullcontext():
                (row,) = await connection.fetch(
                    *("import_documents", collection, version, wire.moment(version)),
                    *(_joined(ids), _joined(texts), _joined(times), replace, len(lines), slot),
                )
                if exact and 0 < row["written"] < len(lines):
                    raise ExistsError(set(ids).difference(row["ids"]))
            if not row["written"]:
                if not await self._exists(connection, collection):
                    return None
                if exact:
                    raise ExistsError(set(ids))
        return Chunk(row["written"], row["replaced"] or [], row["incarnation"])

    @asynccontextmanager
    async def export(self, collection: str, statement: Statement) -> AsyncIterator[Export]:
        """Read all rows as they are at this moment; it holds a connection until it ends."""
        gaps = {"rows": str(EXPORT_ROWS), "max_bytes": str(EXPORT_BYTES)}
        text = self._database.query("open_export").format(**statement.fragments, **gaps)
        texts = {
            "read_export": self._database.query("read_export").format(**gaps),
            "read_large": self._database.query("read_large"),
        }
        async with (
            self._database.export_connection(blames=errors.InvalidQuery) as connection,
            connection.raw.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.send("open_export", text, collection, *statement.arguments)
            yield Export(connection, collection, texts)

    async def _exists(self, connection: Connection, collection: str) -> bool:
        rows = await connection.fetch("get_collection", collection)
        return bool(rows) and rows[0]["settings"] is not None


def _joined(column: Sequence[str | None]) -> str:
    return "\x1e".join(text or "" for text in column)
