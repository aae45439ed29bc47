"""Read, write and list documents.

With `collections`, `grouped` and `transfer` the only ones that know both store and cache. Must not
know HTTP. A write tells the cache after its commit and before it answers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Generic, TypeVar, cast

import msgspec
import uuid_utils

from credenza import errors, wire
from credenza.batches import Change, Left
from credenza.cache import Cache, Entry, Key
from credenza.collection import Collection
from credenza.collections import Collections
from credenza.conditions import ANY, NONE, Conditions
from credenza.grouped import Grouped, Modify, Patch, entry_of, modified
from credenza.rows import Row
from credenza.store import Store
from credenza.telemetry import note_cache
from credenza.writes import Writes

T = TypeVar("T")


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Hold(Generic[T]):
    """What was made of a document, good as long as this process holds it and its collection."""

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
        grouped: Grouped,
        writes: Writes,
    ) -> None:
        self._store = store
        self._cache = cache
        self._collections = collections
        self._grouped = grouped
        self._writes = writes

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
        entry = self._cache.near(Key(collection, settings.incarnation, id_))
        if entry is None or entry.body is None:
            return None
        if entry.note is None or entry.note.collection is not settings_entry:
            document = wire.StoredDocument(id_, entry.version, entry.body)
            entry.note = Hold(entry, settings_entry, prepare(document, settings))
        return cast("Hold[T]", entry.note)

    def left(self, hold: Hold[T]) -> float:
        """Return for how many seconds a hold is good, which is served now; 0: ask `near` again."""
        now = monotonic()
        left = hold.document.until - now
        if left <= 0 or hold.collection.until <= now or not self._cache.answers:
            return 0.0
        self._cache.again(hold.document)
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
        return None if row is None else entry_of(row)

    async def _stored(self, collection: str, id_: str) -> wire.StoredDocument | None:
        row = await self._store.get_document(collection, id_)
        return None if row is None or row.data is None else row.document()

    async def create(self, collection: str, data: str) -> wire.StoredDocument:
        """Store a value under a new id."""
        row = await self._grouped.create(collection, Change(str(uuid_utils.uuid7()), data))
        if row is None:
            raise errors.Unavailable("The collection was deleted meanwhile.")
        return row.document()

    async def put(
        self, collection: str, id_: str, data: str, conditions: Conditions
    ) -> tuple[wire.StoredDocument, bool]:
        """Store or replace a document; the flag tells whether it was created."""
        known = await self._collections.find(collection)
        if not _lacks_if_match(known, conditions):
            return await self._put(known, collection, Change(id_, data, conditions))
        # It may only create, which is decided where it is written.
        only_new = Change(id_, data, replace(conditions, if_none_match=ANY))
        try:
            return await self._put(known, collection, only_new)
        except errors.PreconditionFailed:
            raise _if_match_required(collection) from None

    async def _put(
        self, known: Collection | None, collection: str, change: Change
    ) -> tuple[wire.StoredDocument, bool]:
        row = await self._write(known, collection, change)
        if row is None:
            raise _refused(await self._stored(collection, change.id))
        return row.document(), row.created_at == row.updated_at

    async def _write(self, known: Collection | None, collection: str, change: Change) -> Row | None:
        """Put or delete a document, with others if that is possible; None: it is refused."""
        if change.conditions.contradict:
            return None
        outcome = await self._grouped.write(collection, change)
        if outcome is Left.ALONE:
            return await self._writes.run(self._write_alone(known, collection, change))
        return outcome

    async def _write_alone(
        self, known: Collection | None, collection: str, change: Change
    ) -> Row | None:
        with self._collections.doubtful(known, collection, [change.id]):
            if change.data is None or change.conditions.must_exist:
                row = await self._store.change_document(collection, change)
            else:
                row = await self._collections.written_in(
                    collection, lambda: self._store.put_document(collection, change)
                )
        if row is not None:
            verb = "delete" if change.data is None else "put"
            await self._grouped.wrote(known, collection, [row], verb)
        return row

    async def patch(
        self, collection: str, id_: str, modify: Modify, conditions: Conditions, *, size: int
    ) -> wire.StoredDocument:
        """Replace a document by what `modify` makes of it, with others if that is possible.

        `size` is how many characters it reads for that, besides the document.
        """
        known = await self._checked(collection, id_, conditions)
        patch = Patch(id_, modify, size, conditions)
        row = await self._grouped.patch(collection, patch)
        if row is None:
            row = await self._writes.run(self._patch_alone(known, collection, patch))
        return row.document()

    async def _patch_alone(self, known: Collection | None, collection: str, patch: Patch) -> Row:
        with self._collections.doubtful(known, collection, [patch.id]):
            async with self._store.locked(collection, patch.id) as locked:
                if locked is None or locked.row.data is None:
                    raise _not_found(collection, patch.id)
                if not patch.conditions.hold(locked.row.version, locked.row.updated_at):
                    raise _refused(locked.row.document())
                row = await locked.replace(await modified(locked.row.data, patch))
        await self._grouped.wrote(known, collection, [row], "patch")
        return row

    async def delete(self, collection: str, id_: str, conditions: Conditions) -> None:
        """Delete a document; NotFound where there is none."""
        known = await self._checked(collection, id_, conditions)
        change, row = Change(id_, None, conditions), None
        if not conditions.must_be_absent:
            row = await self._write(known, collection, change)
        if row is None:
            current = await self._stored(collection, id_)
            if current is None or conditions == NONE:  # it may have been made meanwhile
                raise _not_found(collection, id_)
            raise _refused(current)

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


def _lacks_if_match(known: Collection | None, conditions: Conditions) -> bool:
    """Return whether a write does not say what it replaces, and the collection asks for it."""
    if known is None or not known.settings.require_if_match:
        return False
    return conditions.if_match is None and not conditions.must_be_absent


def _if_match_required(collection: str) -> errors.PreconditionRequired:
    return errors.PreconditionRequired(f"Writes in {collection!r} need If-Match.")


def _not_found(collection: str, id_: str) -> errors.NotFound:
    return errors.NotFound(f"There is no document {id_!r} in {collection!r}.")


def _refused(current: wire.StoredDocument | None) -> errors.PreconditionFailed:
    if current is None:
        return errors.PreconditionFailed("There is no such document.")
    return errors.PreconditionFailed(
        f"The document has version {current.version}.",
        current=msgspec.Raw(current.body),
    )
