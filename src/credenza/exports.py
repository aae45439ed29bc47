"""Exports: all documents that a query finds, as they were at one moment, in bounded memory.

Must not know HTTP, nor how the rows are read. Few exports are under way at once, because each holds
a connection and has PostgreSQL keep what was there when it began.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Final

from credenza import errors
from credenza.bulk import Bulk, Export
from credenza.collections import Collections
from credenza.database import EXPORTS
from credenza.lists import item
from credenza.query import Query, to_sql
from credenza.query.tree import And, Metadata, MetadataComparison
from credenza.telemetry import Metrics

RETRY_SECONDS: Final = 5
"""When to ask again while there are too many."""


class Exports:
    """The exports of one process."""

    def __init__(self, bulk: Bulk, collections: Collections, metrics: Metrics) -> None:
        self._bulk = bulk
        self._collections = collections
        self._free = EXPORTS
        self._refused = metrics.refused["exports"]

    async def lines(self, collection: str, query: Query) -> AsyncGenerator[bytes, None]:
        """Yield all items, a line each, some hundred at a time; close it where it is left.

        Overloaded where too many exports are under way, InvalidQuery or QueryTooExpensive where the
        query is at fault; all before the first lines come.
        """
        if query.cursor is not None:
            raise errors.InvalidQuery("An export has no pages, so that it takes no cursor.")
        if not self._free:
            self._refused.inc()
            raise errors.Overloaded(f"{EXPORTS} exports are under way.", retry_after=RETRY_SECONDS)
        self._free -= 1
        try:
            statement = to_sql(
                query, indexes=await self._collections.indexes_for(collection, query)
            )
            async with self._bulk.export(collection, statement) as export:
                while rows := await export.read():
                    lines: list[str] = []
                    for row in rows:
                        if row["data"] is not None:
                            lines.append(item(query, row))
                            continue
                        data = await _large(export, query, row["id"])
                        yield _joined([*lines, item(query, {**row, "data": data})])
                        lines.clear()
                    yield _joined(lines)
        finally:
            self._free += 1


async def _large(export: Export, query: Query, id_: str) -> str:
    """Return the data of a document that is too large to be read with others."""
    only = And((MetadataComparison(Metadata("$id"), "eq", id_),))
    return await export.read_large(to_sql(replace(query, filter=only, order=())))


def _joined(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
