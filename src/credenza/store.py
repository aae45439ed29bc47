"""What PostgreSQL stores: one method a statement of `sql/`.

Must not know HTTP, the cache, or how connections are made. Times and versions are parameters of
each write, so that every engine takes the statements.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import asyncpg

from credenza import errors, wire
from credenza.batches import Change
from credenza.conditions import Conditions
from credenza.database import Database
from credenza.groups import Groups
from credenza.locks import Locked, LockedCollection
from credenza.rows import Clock, CollectionRow, Row
from credenza.slots import Slots
from credenza.telemetry import Metrics, count_statement

BATCH: Final = 1000
"""Rows that one statement of upkeep deletes or lists."""

READERS: Final = 3
"""Groups of reads that are under way at once; the pool's other connections are for all else."""

CATALOG: Final = "_catalog"
"""Key under which the names of all collections are kept; no collection can be called so."""

SYSTEM: Final = "_system"
"""Key under which the service keeps what belongs to no collection."""


class Store:
    """The documents, collections and secrets of one database."""

    def __init__(self, database: Database, clock: Clock, slots: Slots, metrics: Metrics) -> None:
        self._database = database
        self._clock = clock
        self._slots = slots
        series = metrics.groups["read"]
        self._reads = Groups(self.get_documents, parallel=READERS, series=series)

    # Documents

    async def get_document(self, collection: str, id_: str) -> Row | None:
        """Return the row, a tombstone included; None where there is none.

        Who reads while others do shares a statement with them, which begins after each has come.
        """
        try:
            return await self._reads.join(collection, id_)
        finally:
            count_statement()

    async def get_documents(self, collection: str, ids: Sequence[str]) -> list[Row | None]:
        """Return the rows as above, in the order of the ids."""
        async with self._database.connection(blames=errors.InvalidId) as connection:
            records = await connection.fetch("get_documents", collection, list(set(ids)))
        rows = {record["id"]: Row(*record) for record in records}
        return [rows.get(id_) for id_ in ids]

    async def put_document(self, collection: str, change: Change) -> Row | None:
        """Store or replace a document; None: a condition does not hold, or no such collection."""
        conditions = change.conditions
        return await self._write(
            *("put_document", collection, change.id, *self._stamp(), change.data),
            *(conditions.unwanted, conditions.must_be_absent, conditions.changed_before),
        )

    async def change_document(self, collection: str, change: Change) -> Row | None:
        """Replace or delete a document; None: there is none, or a condition does not hold."""
        conditions = change.conditions
        if change.data is None:
            return await self._write(
                *("delete_document", collection, change.id, *self._stamp()),
                *(conditions.wanted, conditions.unwanted, conditions.changed_before),
            )
        return await self._write(
            *("replace_document", collection, change.id, *self._stamp(), change.data),
            *(conditions.wanted, conditions.unwanted),
        )

    @asynccontextmanager
    async def locked(self, collection: str, id_: str) -> AsyncIterator[Locked | None]:
        """Hold a document's row in a transaction; None: there is no document."""
        async with (
            self._database.connection(blames=errors.UnrepresentableJson, writes=True) as connection,
            self._slots.lent() as slot,
            connection.raw.transaction(),
        ):
            row = _row(id_, await connection.fetch("lock_document", collection, id_))
            if row is None:
                yield None
            else:
                yield Locked(connection, collection, row, self._stamp(), slot)

    async def _write(self, name: str, collection: str, id_: str, *arguments: object) -> Row | None:
        async with (
            self._database.connection(blames=errors.UnrepresentableJson, writes=True) as connection,
            self._slots.lent() as slot,
        ):
            return _row(id_, await connection.fetch(name, collection, id_, *arguments, slot))

    def _stamp(self) -> tuple[int, datetime]:
        version = self._clock.now()
        return version, wire.moment(version)

    # Collections

    async def get_collection(self, collection: str) -> CollectionRow | None:
        """Return the collection, also one that was deleted; None where there never was one."""
        async with self._database.connection(blames=errors.InvalidId) as connection:
            return _collection(await connection.fetch("get_collection", collection))

    async def create_collection(self, collection: str) -> bool:
        """Make the collection with default settings unless it is there; tell whether it was made.

        The catalog comes first: a name there without a collection is passed over, a collection
        without a name would never be listed.
        """
        async with self._database.connection(blames=errors.InvalidId, writes=True) as connection:
            await connection.fetch("add_to_catalog", CATALOG, collection)
            return bool(await connection.fetch("create_collection", collection, *self._stamp()))

    async def put_collection(
        self, collection: str, settings: str, conditions: Conditions
    ) -> CollectionRow | None:
        """Replace the settings; None: no such collection, or a condition does not hold."""
        async with self._database.connection(
            blames=errors.Unprocessable, writes=True
        ) as connection:
            rows = await connection.fetch(
                "put_collection",
                collection,
                *self._stamp(),
                settings,
                conditions.wanted,
                conditions.unwanted,
                conditions.changed_before,
            )
            return _collection(rows)

    @asynccontextmanager
    async def locked_collection(self, collection: str) -> AsyncIterator[LockedCollection | None]:
        """Hold a collection's row in a transaction; None where there never was one."""
        async with (
            self._database.connection(blames=errors.Unprocessable, writes=True) as connection,
            connection.raw.transaction(),
        ):
            row = _collection(await connection.fetch("lock_collection", collection))
            if row is None:
                yield None
            else:
                yield LockedCollection(connection, collection, row, self._stamp())

    async def delete_collection(self, collection: str, conditions: Conditions) -> int | None:
        """Make the collection and its documents absent; its version, or None as above."""
        async with self._database.connection(blames=errors.InvalidId, writes=True) as connection:
            rows = await connection.fetch(
                *("delete_collection", collection, *self._stamp()),
                *(conditions.wanted, conditions.unwanted),
            )
            return int(rows[0]["version"]) if rows else None

    async def list_collections(
        self, after: str, limit: int
    ) -> tuple[list[tuple[str, CollectionRow]], str | None]:
        """Return collections by name after a name, and the name to go on from, if there are more.

        The catalog's page is one statement, each collection one more: none spans shards.
        """
        async with self._database.connection(blames=errors.InvalidQuery) as connection:
            rows = await connection.fetch("list_catalog", CATALOG, after, limit + 1)
            names = [str(row["name"]) for row in rows]
            found = [
                (name, _collection(await connection.fetch("get_collection", name)))
                for name in names[:limit]
            ]
        listed = [(name, row) for name, row in found if row and row.settings is not None]
        return listed, names[limit - 1] if len(names) > limit else None

    # What happens by itself

    async def names(self) -> AsyncIterator[str]:
        """Yield each name of the catalog, deleted collections included."""
        after = ""
        while True:
            async with self._database.connection(blames=errors.Internal) as connection:
                rows = await connection.fetch("list_catalog", CATALOG, after, BATCH)
            for row in rows:
                yield str(row["name"])
            if len(rows) < BATCH:
                return
            after = str(rows[-1]["name"])

    async def purge(self, collection: str) -> bool:
        """Delete a batch of a deleted collection's rows; True while there may be more."""
        async with self._database.connection(blames=errors.Internal) as connection:
            state = await connection.fetch("get_purged", collection)
            if not state or state[0]["purged"]:
                return False
            if await connection.fetch("purge_documents", collection, BATCH):
                return True
            await connection.fetch("set_purged", collection, state[0]["incarnation"])
            return False

    async def reap(self, collection: str, before: datetime) -> bool:
        """Delete a batch of tombstones older than `before`; True while there may be more."""
        async with self._database.connection(blames=errors.Internal) as connection:
            rows = await connection.fetch("reap_tombstones", collection, before, BATCH)
            return len(rows) == BATCH

    # Secrets

    async def secret(self, name: str, proposal: str) -> str:
        """Return the secret of that name; the first proposal ever made is the one that stays."""
        async with self._database.connection(blames=errors.Internal) as connection:
            await connection.fetch("add_secret", SYSTEM, name, proposal)
            rows = await connection.fetch("get_secret", SYSTEM, name)
            return str(rows[0]["value"])


def _row(id_: str, rows: Sequence[asyncpg.Record]) -> Row | None:
    return Row(id=id_, **rows[0]) if rows else None


def _collection(rows: Sequence[asyncpg.Record]) -> CollectionRow | None:
    return CollectionRow(**rows[0]) if rows else None
