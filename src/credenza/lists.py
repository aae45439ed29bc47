"""Lists: pages of documents in an order.

Must not know HTTP. Lists are read from the database; `pages` keeps what was made of them.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from credenza import errors, wire
from credenza.query import Cursors, Indexes, Position, Query, to_sql
from credenza.settings import Settings
from credenza.snapshots import Snapshots
from credenza.store import Store

CURSOR_KEY: Final = "cursor"


@dataclass(frozen=True, slots=True)
class Page:
    """Items as JSON, the cursor of the next page, None on the last, and the state they are of."""

    items: list[str]
    cursor: str | None
    state: str


class Lists:
    """Reads many documents at once."""

    def __init__(self, snapshots: Snapshots, store: Store, settings: Settings) -> None:
        self._snapshots = snapshots
        self._store = store
        self._settings = settings
        self._max_bytes = settings.max_page_bytes
        self._kept_key = ""
        self._signer: tuple[list[str], Cursors] | None = None

    async def page(
        self, collection: str, query: Query, position: Position | None, indexes: Indexes
    ) -> Page:
        """Return the page that the query asks for; a collection without documents has one too."""
        found = await self._snapshots.page(
            collection, to_sql(query, position, indexes), query.limit, self._max_bytes
        )
        cursor = None
        if found.more:
            cursors = await self._cursors()
            cursor = cursors.write(query, collection, found.rows[-1]["position"])
        return Page([item(query, row) for row in found.rows], cursor, found.state)

    async def state(self, collection: str) -> str:
        """Return the collection's state: pages of equal states are equal."""
        return await self._snapshots.state(collection)

    async def begin(self, collection: str, query: Query) -> tuple[Position | None, str]:
        """Return where a page begins, and what it depends on besides query and documents.

        CursorMismatch for a cursor that is not the query's.
        """
        cursors = await self._cursors()
        return cursors.read(query, collection), f"{cursors.name} {self._max_bytes}"

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


def item(query: Query, row: Mapping[str, Any]) -> str:
    """Return a row as JSON, as its view has it."""
    data: str = row["data"]
    if query.view == "data":
        return data
    created, updated = wire.timestamp_at(row["created"]), wire.timestamp_at(row["updated"])
    return wire.represent(row["id"], row["version"], created, updated, data)
