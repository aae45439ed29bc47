"""Many documents written by one statement, each decided by itself while its row is locked.

Must not know who asks, nor the cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal, TypeAlias

import asyncpg

from credenza import errors, wire
from credenza.conditions import NONE, Conditions
from credenza.database import Database
from credenza.rows import Clock, Row
from credenza.slots import Slots


class Left(Enum):
    """What a statement for many leaves to a statement for one."""

    ALONE = "alone"


@dataclass(frozen=True, slots=True)
class Change:
    """A document's new text, None: it is to be deleted; and what must hold of what is there."""

    id: str
    data: str | None
    conditions: Conditions = NONE


Outcome: TypeAlias = Row | Literal[Left.ALONE] | None
"""The row that was written; None: it was refused, or is not there."""


class Batches:
    """The documents of one database, as many at a time as there are in a group."""

    def __init__(self, database: Database, clock: Clock, slots: Slots) -> None:
        self._database = database
        self._slots = slots
        self._clock = clock

    async def insert(
        self, collection: str, changes: Sequence[Change]
    ) -> Sequence[Row | Exception | None]:
        """Store documents under new ids; None: there is no such collection.

        Where one is at fault, each is stored alone, so that the others are stored.
        """
        try:
            return await self._insert(collection, changes)
        except errors.Unavailable:  # nobody's fault, and it may have been committed
            raise
        except Exception:
            if len(changes) == 1:
                raise
        return [await self._insert_alone(collection, change) for change in changes]

    async def _insert_alone(self, collection: str, change: Change) -> Row | Exception | None:
        try:
            return (await self._insert(collection, [change]))[0]
        except Exception as error:  # noqa: BLE001 - it is returned to who asked
            return error

    async def _insert(self, collection: str, changes: Sequence[Change]) -> list[Row | None]:
        version = self._clock.now()
        now = wire.moment(version)
        ids, texts = [change.id for change in changes], [change.data for change in changes]
        found = await self._send("insert_documents", collection, version, now, ids, texts)
        rows = {id_: Row(of, id_, version, now, now, data) for of, id_, data in found}
        return [rows.get(id_) for id_ in ids]

    async def put(self, collection: str, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Store or replace documents, each id once; where one is at fault, all are left alone."""
        ordered = sorted(changes, key=_id)
        conditions = [change.conditions for change in ordered]
        return await self._change(
            *("put_documents", collection, changes, [change.id for change in ordered]),
            [change.data for change in ordered],
            [str(each.must_exist) for each in conditions],
            [_array(each.wanted) for each in conditions],
            [_array(each.unwanted) for each in conditions],
            [str(each.must_be_absent) for each in conditions],
            [_time(each.changed_before) for each in conditions],
        )

    async def delete(self, collection: str, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Leave tombstones, as above."""
        ordered = sorted(changes, key=_id)
        conditions = [change.conditions for change in ordered]
        return await self._change(
            *("delete_documents", collection, changes, [change.id for change in ordered]),
            [_array(each.wanted) for each in conditions],
            [_array(each.unwanted) for each in conditions],
            [_time(each.changed_before) for each in conditions],
        )

    async def _change(
        self, name: str, collection: str, changes: Sequence[Change], *columns: object
    ) -> Sequence[Outcome]:
        version = self._clock.now()
        try:
            found = await self._send(name, collection, version, wire.moment(version), *columns)
        except errors.Unavailable:  # nobody's fault, and it may have been committed
            raise
        except Exception:
            if len(changes) == 1:
                raise
            return [Left.ALONE] * len(changes)
        outcomes = {record["id"]: _outcome(record) for record in found}
        return [outcomes.get(change.id, _missing(change)) for change in changes]

    async def _send(self, name: str, collection: str, *arguments: object) -> list[asyncpg.Record]:
        async with (
            self._database.connection(blames=errors.UnrepresentableJson, writes=True) as connection,
            self._slots.lent() as slot,
        ):
            return await connection.fetch(name, collection, *arguments, slot)


def _id(change: Change) -> str:
    return change.id


def _array(versions: list[str] | None) -> str | None:
    """Return versions as PostgreSQL writes an array."""
    return None if versions is None else f"{{{','.join(versions)}}}"


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else wire.timestamp(moment)


def _outcome(record: asyncpg.Record) -> Outcome:
    if record["outcome"] == "written":
        return Row(*tuple(record)[:-1])
    return None if record["outcome"] == "refused" else Left.ALONE


def _missing(change: Change) -> Outcome:
    """Return the outcome for a document of which there was no row.

    One that was to be made may have been made by another writer at the same time, or in vain,
    because there is no such collection.
    """
    return None if change.data is None or change.conditions.must_exist else Left.ALONE
