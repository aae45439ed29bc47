"""Many documents in few statements: the chunks of imports, and the cursor of an export.

Must not know HTTP, the cache, or how connections are made.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import nullcontext
from typing import Final

import asyncpg

from credenza import errors, wire
from credenza.database import Connection, Database
from credenza.rows import Chunk, Clock, ExistsError, Line
from credenza.slots import Slots

EXPORT_ROWS: Final = 500
"""Rows of an export that are read at once."""

EXPORT_BYTES: Final = 1024 * 1024
"""Bytes of data that so many rows may have."""

LARGE_ROWS: Final = 8
"""Rows that are read at once where they may have more."""


class Bulk:
    """The documents of one database, many at a time."""

    def __init__(self, database: Database, slots: Slots) -> None:
        self._database = database
        self._slots = slots
        self._clock = Clock()

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

    async def export(
        self, collection: str, fragments: dict[str, str], arguments: Sequence[object]
    ) -> AsyncGenerator[list[asyncpg.Record], None]:
        """Yield all rows, some at a time, as they were at one moment; close it where it is left.

        It holds a connection until then. `fragments` fill the statement's gaps.
        """
        text = self._database.query("open_export").format(**fragments, rows=EXPORT_ROWS)
        read = self._database.query("read_export")
        async with (
            self._database.export_connection(blames=errors.InvalidQuery) as connection,
            connection.raw.transaction(),
        ):
            await connection.send("open_export", text, collection, *arguments)
            ahead: int | None = EXPORT_BYTES + 1  # nobody knows yet
            while ahead is not None:
                number = EXPORT_ROWS if ahead <= EXPORT_BYTES else LARGE_ROWS
                rows = await connection.send("read_export", read.format(rows=number))
                ahead = rows[-1]["ahead"] if rows else None
                if rows:
                    yield rows

    async def _exists(self, connection: Connection, collection: str) -> bool:
        rows = await connection.fetch("get_collection", collection)
        return bool(rows) and rows[0]["settings"] is not None


def _joined(column: Sequence[str | None]) -> str:
    return "\x1e".join(text or "" for text in column)
