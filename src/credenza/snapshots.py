"""What lists are made of: pages of documents, and the state of a collection in the same snapshot.

Must not know what a query means, HTTP or the cache.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import asyncpg

from credenza import errors
from credenza.database import Database
from credenza.groups import Groups
from credenza.query import Statement
from credenza.telemetry import Metrics, count_statement

NOWHERE: Final = ""
"""The state of a collection that does not exist."""

FEW: Final = 1000
"""Documents that are sorted rather than looked for along an order.

Of 100,000 documents about as many are read along it for a page of 100 when so many match.
"""

READERS: Final = 2
"""Groups of those who ask for a state that are under way at once."""


class Rows(NamedTuple):
    """A page's rows in their order, whether more follow, and the state that they belong to."""

    rows: list[asyncpg.Record]
    more: bool
    state: str


class Snapshots:
    """Reads many documents of one database at once."""

    def __init__(self, database: Database, metrics: Metrics, few: int = FEW) -> None:
        self._database = database
        self._few = few
        series = metrics.groups["state"]
        self._states = Groups(self._read_state, parallel=READERS, series=series)

    async def page(self, collection: str, statement: Statement, limit: int, max_bytes: int) -> Rows:
        """Return a page of at most so many documents and, but for the first, bytes of data."""
        fragments, arguments = statement.fragments, statement.arguments
        gaps = {"limit": limit + 1, "max_bytes": len(arguments) + 2, "few": self._few}
        which = "found_by_index" if statement.indexed else "found_in_order"
        among = self._database.query(which).format(**fragments, **gaps)
        text = self._database.query("list_documents").format(**fragments, **gaps, found=among)
        async with self._database.connection(blames=errors.InvalidQuery) as connection:
            found = await connection.send("list_documents", text, collection, *arguments, max_bytes)
        rows = [row for row in found[:limit] if row["data"] is not None]
        more = bool(rows) and len(found) > len(rows)
        return Rows(rows, more, found[0]["state"] if found else NOWHERE)

    async def state(self, collection: str) -> str:
        """Return the collection's state; two that are equal are those of the same documents.

        Who asks while others do shares a statement with them, which begins after each has come.
        """
        try:
            return await self._states.join(collection, None)
        finally:
            count_statement()

    async def _read_state(self, collection: str, asked: Sequence[None]) -> Sequence[str]:
        async with self._database.connection(blames=errors.InvalidId) as connection:
            found = await connection.fetch("get_state", collection)
        return [found[0]["state"] if found else NOWHERE] * len(asked)
