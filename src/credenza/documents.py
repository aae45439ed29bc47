"""Read, write and list documents.

With `collections` and `transfer` the only ones that know both store and cache. Must not know HTTP.
A write tells the cache after its commit and before it answers.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from time import monotonic
from typing import Final, Generic, TypeVar, cast

import msgspec
import uuid_utils

from credenza import errors, values, wire
from credenza.cache import Cache, Entry, Key
from credenza.collections import Collection, Collections
from credenza.conditions import ANY, NONE, Conditions
from credenza.groups import Groups
from credenza.rows import Row, Text
from credenza.store import Store
from credenza.telemetry import Metrics, count_statement, note_cache
from credenza.writes import Writes

T = TypeVar("T")

WRITERS: Final = 2
"""Groups of one kind of writes under way at once: one is put together while one commits."""

ID: Final = attrgetter("id")


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Hold(Generic[T]):
    """What was made of a document, good as long as this process holds it and its collection."""

    key: Key
    document: Entry
    collection: Entry
    prepared: T


class Documents:
    """The documents of all collections, one at a time."""

    def __init__(
        self,
        store: Store,
        cache: Cache,
        collections: Collections,
        writes: Writes,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._cache = cache
        self._collections = collections
        self._written = metrics.written
        self._created = metrics.created
        self._writes = writes
        self._creates: Groups[str, Text, Row | None] = Groups(
            lambda name, lines: writes.run(self._create_all(name, lines)), parallel=WRITERS
        )
        self._puts: Groups[str, Text, tuple[wire.StoredDocument, bool] | None] = Groups(
            lambda name, lines: writes.run(self._put_all(name, lines)), parallel=WRITERS, about=ID
        )

    async def read(self, collection: str, id_: str) -> wire.StoredDocument:
        """Return a document; NotFound where there is none."""
        found = await self._find(collection, id_)
        if found is None:
            raise _not_found(collection, id_)
        return found

    def near(
        self, collection: str, id_: str, prepare: Callable[[wire.StoredDocument, Collection], T]
    ) -> Hold[T] | None:
        """Return what `prepare` makes of a document that this process holds; None: ask `read`.

        It is made once, and kept with the document until that or its collection changes.
        """
        known = self._collections.near(collection)
        if known is None:
            return None
        settings, settings_entry = known
        key = Key(collection, settings.incarnation, id_)
        entry = self._cache.near(key)
        if entry is None or entry.body is None:
            return None
        if entry.note is None or entry.note.collection is not settings_entry:
            document = wire.StoredDocument(id_, entry.version, entry.body)
            entry.note = Hold(key, entry, settings_entry, prepare(document, settings))
        return cast("Hold[T]", entry.note)

    def left(self, hold: Hold[T]) -> float:
        """Return for how many seconds a hold is good, which is served now; 0: ask `near` again."""
        now = monotonic()
        left = hold.document.until - now
        if left <= 0 or hold.collection.until <= now or not self._cache.answers:
            return 0.0
        self._cache.again(hold.key)
        return left

    async def _find(self, collection: str, id_: str) -> wire.StoredDocument | None:
        if not self._cache.answers:
            note_cache("bypass")
            return await self._stored(collection, id_)
        known = await self._collections.find(collection)
        if known is None:
            return None
        key = Key(collection, known.incarnation, id_)
        found = await self._cache.read(
            key, lambda: self._load(collection, id_), known.settings.cache_ttl
        )
        note_cache(found.outcome, found.ttl)
        if found.entry is None or found.entry.body is None:
            return None
        return wire.StoredDocument(id_, found.entry.version, found.entry.body)

    async def _load(self, collection: str, id_: str) -> Entry | None:
        row = await self._store.get_document(collection, id_)
        return None if row is None else _entry(row)

    async def _stored(self, collection: str, id_: str) -> wire.StoredDocument | None:
        row = await self._store.get_document(collection, id_)
        return None if row is None or row.data is None else row.document()

    async def create(self, collection: str, data: str) -> wire.StoredDocument:
        """Store a value under a new id.

        Who writes while others do shares a statement, and so a commit, with them.
        """
        try:
            row = await self._creates.join(collection, Text(str(uuid_utils.uuid7()), data))
        finally:
            count_statement()
        if row is None:
            raise errors.Unavailable("The collection was deleted meanwhile.")
        return row.document()

    async def _create_all(
        self, collection: str, lines: Sequence[Text]
    ) -> Sequence[Row | Exception | None]:
        known = await self._collections.find(collection) if self._cache.enabled else None
        async with self._doubtful(known, collection, lines[0].id):
            found = await self._collections.written_in(
                collection, lambda: self._inserted(collection, lines)
            )
        rows = [row for row in found or () if isinstance(row, Row)]
        if rows:
            self._created.number += len(rows)
            await self._collections.confirm(collection, known, rows[0].incarnation)
            await self._cache.touched(collection)
        return found or [None] * len(lines)

    async def _inserted(
        self, collection: str, lines: Sequence[Text]
    ) -> Sequence[Row | Exception | None] | None:
        found = await self._store.insert_documents(collection, lines)
        return None if all(row is None for row in found) else found

    async def put(
        self, collection: str, id_: str, data: str, conditions: Conditions
    ) -> tuple[wire.StoredDocument, bool]:
        """Store or replace a document; the flag tells whether it was created."""
        known = await self._collections.find(collection)
        if not _lacks_if_match(known, conditions):
            if conditions == NONE and (put := await self._put_with_others(collection, id_, data)):
                return put
            return await self._writes.run(self._put(known, collection, id_, data, conditions))
        # It may only create, which is decided where it is written.
        only_new = replace(conditions, if_none_match=ANY)
        try:
            return await self._writes.run(self._put(known, collection, id_, data, only_new))
        except errors.PreconditionFailed:
            raise _if_match_required(collection) from None

    async def _put_with_others(
        self, collection: str, id_: str, data: str
    ) -> tuple[wire.StoredDocument, bool] | None:
        """Store a document together with those of others; None: it has to go alone."""
        try:
            return await self._puts.join(collection, Text(id_, data))
        finally:
            count_statement()

    async def _put_all(
        self, collection: str, lines: Sequence[Text]
    ) -> Sequence[tuple[wire.StoredDocument, bool] | None]:
        known = await self._collections.find(collection)
        async with self._doubtful(known, collection, *(line.id for line in lines)):
            try:
                rows = await self._store.put_documents(collection, lines)
            except errors.Unavailable:
                raise
            except Exception:  # noqa: BLE001 - whose fault it is will be seen when each goes alone
                rows = {}
        if rows:
            await self._wrote(known, collection, list(rows.values()), "put")
        return [
            None if row is None else (row.document(), row.created_at == row.updated_at)
            for row in map(rows.get, (line.id for line in lines))
        ]

    async def _put(
        self,
        known: Collection | None,
        collection: str,
        id_: str,
        data: str,
        conditions: Conditions,
    ) -> tuple[wire.StoredDocument, bool]:
        async with self._doubtful(known, collection, id_):
            if conditions.contradict:
                written = None
            elif conditions.must_exist:
                row = await self._store.replace_document(collection, id_, data, conditions)
                written = None if row is None else (row, False)
            else:
                written = await self._collections.written_in(
                    collection,
                    lambda: self._store.put_document(collection, id_, data, conditions),
                )
        if written is None:
            raise _refused(await self._stored(collection, id_))
        await self._wrote(known, collection, [written[0]], "put")
        return written[0].document(), written[1]

    async def patch(
        self,
        collection: str,
        id_: str,
        change: Callable[[values.JSON], str],
        conditions: Conditions,
    ) -> wire.StoredDocument:
        """Replace a document by what `change` makes of it, as JSON text that can be stored."""
        known = await self._checked(collection, id_, conditions)
        return await self._writes.run(self._patch(known, collection, id_, change, conditions))

    async def _patch(
        self,
        known: Collection | None,
        collection: str,
        id_: str,
        change: Callable[[values.JSON], str],
        conditions: Conditions,
    ) -> wire.StoredDocument:
        async with (
            self._doubtful(known, collection, id_),
            self._store.locked(collection, id_) as locked,
        ):
            if locked is None or locked.row.data is None:
                raise _not_found(collection, id_)
            if not conditions.hold(locked.row.version, locked.row.updated_at):
                raise _refused(locked.row.document())
            row = await locked.replace(change(values.decode(locked.row.data)))
        await self._wrote(known, collection, [row], "patch")
        return row.document()

    async def delete(self, collection: str, id_: str, conditions: Conditions) -> None:
        """Delete a document; NotFound where there is none."""
        known = await self._checked(collection, id_, conditions)
        await self._writes.run(self._delete(known, collection, id_, conditions))

    async def _delete(
        self, known: Collection | None, collection: str, id_: str, conditions: Conditions
    ) -> None:
        async with self._doubtful(known, collection, id_):
            row = None
            if not conditions.must_be_absent:
                row = await self._store.delete_document(collection, id_, conditions)
        if row is None:
            current = await self._stored(collection, id_)
            if current is None or conditions == NONE:  # it may have been made meanwhile
                raise _not_found(collection, id_)
            raise _refused(current)
        await self._wrote(known, collection, [row], "delete")

    async def _checked(
        self, collection: str, id_: str, conditions: Conditions
    ) -> Collection | None:
        """Return the collection as known; PreconditionRequired where it asks for If-Match."""
        known = await self._collections.find(collection)
        if _lacks_if_match(known, conditions):
            if await self._stored(collection, id_) is None:
                raise _not_found(collection, id_)
            raise _if_match_required(collection)
        return known

    async def _wrote(
        self, known: Collection | None, collection: str, rows: Sequence[Row], verb: str
    ) -> None:
        """Tell the cache of rows that were written together."""
        self._written.labels(verb).inc(len(rows))
        await self._collections.confirm(collection, known, rows[0].incarnation)
        ttl = None if known is None else known.settings.cache_ttl
        entries = {Key(collection, row.incarnation, row.id): _entry(row) for row in rows}
        await self._cache.wrote_all(entries, ttl)

    @asynccontextmanager
    async def _doubtful(
        self, known: Collection | None, collection: str, *ids: str
    ) -> AsyncIterator[None]:
        """Keep documents from the cache when nobody knows whether their write was committed.

        And their collection's lists, also of a collection that nobody knew.
        """
        try:
            yield
        except errors.Unavailable as problem:
            if problem.outcome_is_unknown:
                incarnation = 0 if known is None else known.incarnation
                for id_ in ids:
                    self._cache.uncertain(Key(collection, incarnation, id_))
            raise


def _lacks_if_match(known: Collection | None, conditions: Conditions) -> bool:
    """Return whether a write does not say what it replaces, and the collection asks for it."""
    if known is None or not known.settings.require_if_match:
        return False
    return conditions.if_match is None and not conditions.must_be_absent


def _if_match_required(collection: str) -> errors.PreconditionRequired:
    return errors.PreconditionRequired(f"Writes in {collection!r} need If-Match.")


def _entry(row: Row) -> Entry:
    return Entry(row.version, None if row.data is None else row.document().body)


def _not_found(collection: str, id_: str) -> errors.NotFound:
    return errors.NotFound(f"There is no document {id_!r} in {collection!r}.")


def _refused(current: wire.StoredDocument | None) -> errors.PreconditionFailed:
    if current is None:
        return errors.PreconditionFailed("There is no such document.")
    return errors.PreconditionFailed(
        f"The document has version {current.version}.",
        current=msgspec.Raw(current.body),
    )
