"""Lists: pages of documents in an order, and exports page by page in bounded memory.

Must not know HTTP. Lists are read from the store; nothing of them is cached.
"""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

import asyncpg

from credenza import errors, wire
from credenza.query import Cursors, Position, Query, to_sql
from credenza.settings import Settings
from credenza.store import Store

EXPORT_LIMIT: Final = 500
"""Documents that an export reads at once."""

CURSOR_KEY: Final = "cursor"


@dataclass(frozen=True, slots=True)
class Page:
    """Items as JSON, and the cursor of the next page; None on the last."""

    items: list[bytes]
    cursor: str | None


class Lists:
    """Reads many documents at once."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._max_bytes = settings.max_page_bytes
        self._kept_key = ""
        self._signer: tuple[list[str], Cursors] | None = None

    async def page(self, collection: str, query: Query) -> Page:
        """Return the page that the query asks for; a collection without documents has one too."""
        cursors = await self._cursors()
        rows, more = await self._rows(collection, query, cursors.read(query, collection))
        cursor = cursors.write(query, collection, rows[-1]["position"]) if more else None
        return Page([_item(query, row) for row in rows], cursor)

    async def export(self, collection: str, query: Query) -> AsyncIterator[bytes]:
        """Yield all items, a line each, some hundred at a time.

        What exists throughout, and whose sort key does not change, appears exactly once.
        """
        if query.cursor is not None:
            raise errors.InvalidQuery("An export has no pages, so that it takes no cursor.")
        chunk = replace(query, limit=EXPORT_LIMIT)
        position: Position | None = None
        more = True
        while more:
            rows, more = await self._rows(collection, chunk, position)
            if rows:
                position = tuple(rows[-1]["position"])
                yield b"".join(_item(query, row) + b"\n" for row in rows)

    async def _rows(
        self, collection: str, query: Query, position: Position | None
    ) -> tuple[list[asyncpg.Record], bool]:
        statement = to_sql(query, position)
        return await self._store.list_documents(
            collection, statement.fragments, statement.arguments, query.limit, self._max_bytes
        )

    async def _cursors(self) -> Cursors:
        """Return what signs cursors; the keys may change while the service runs."""
        try:
            keys = self._settings.secret_keys() or [await self._own_key()]
        except (OSError, UnicodeError) as error:
            raise errors.Unavailable("The service cannot read its signing keys.") from error
        if self._signer is None or self._signer[0] != keys:
            self._signer = (keys, Cursors(keys))
        return self._signer[1]

    async def _own_key(self) -> str:
        """Return the key that all processes share through the database."""
        if not self._kept_key:
            self._kept_key = await self._store.secret(CURSOR_KEY, secrets.token_urlsafe(32))
        return self._kept_key


def _item(query: Query, row: asyncpg.Record) -> bytes:
    data: str = row["data"]
    if query.view == "data":
        return data.encode()
    return wire.StoredDocument.build(
        row["id"], row["version"], row["created_at"], row["updated_at"], data
    ).body
