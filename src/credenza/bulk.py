"""Many documents in few statements: the chunks of imports, and the cursor of an export.

Must not know HTTP, the cache, or how connections are made.
"""

from collections.abc import Sequence
from contextlib import nullcontext

from credenza import errors, wire
from credenza.database import Connection, Database
from credenza.rows import Chunk, Clock, ExistsError, Line


class Bulk:
    """The documents of one database, many at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = Clock()

    async def store_chunk(
        self, collection: str, lines: Sequence[Line], *, replace: bool, exact: bool
    ) -> Chunk | None:
        """Store a chunk at once, in the order of `lines`; None: there is no such collection.

        With `exact`, ExistsError and nothing stored unless every line is.
        """
        version = self._clock.now()
        ids, texts, times = zip(*lines, strict=True)
        async with self._database.connection(
            blames=errors.UnrepresentableJson, writes=True
        ) as connection:
            # A statement is a transaction by itself, unless something is decided after it.
            async with connection.raw.transaction() if exact else nullcontext():
                found = await connection.fetch(
                    *("import_documents", collection, version, wire.moment(version)),
                    *(ids, texts, times, replace),
                )
                if exact and found and len(found) < len(lines):
                    raise ExistsError(set(ids) - {row["id"] for row in found})
            if not found:
                if not await self._exists(connection, collection):
                    return None
                if exact:
                    raise ExistsError(set(ids))
        replaced = [row["id"] for row in found if row["version"] > version]
        return Chunk(len(found), replaced, found[0]["incarnation"] if found else None)

    async def _exists(self, connection: Connection, collection: str) -> bool:
        rows = await connection.fetch("get_collection", collection)
        return bool(rows) and rows[0]["settings"] is not None
