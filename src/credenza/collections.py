"""Collections and their settings: found through the cache, written to the store.

With `documents`, `grouped` and `transfer` the only ones that know both store and cache. Must not
know HTTP. A collection's settings are cached like a document, under its name; its incarnation is
part of each document's key, so that one message makes everything of a deleted collection
unreachable.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, TypeVar

import msgspec
import structlog

from credenza import errors, query, wire
from credenza.cache import Cache, Entry, Key
from credenza.collection import Collection, from_entry, from_row, to_entry
from credenza.conditions import Conditions
from credenza.groups import Groups
from credenza.rows import CollectionRow
from credenza.store import Store
from credenza.telemetry import Metrics, count_statement
from credenza.writes import Writes

T = TypeVar("T")

log = structlog.get_logger()

TOMBSTONE_LIFE: Final = timedelta(hours=24)
"""How long a deleted document's version is remembered."""

MEMO_SECONDS: Final = 1.0
"""How long a collection's settings are taken as they were where there is no cache to ask."""

MAX_REMEMBERED: Final = 1_000
"""Collections that are remembered where there is no cache to ask."""

SETTINGS_KEY: Final = "_settings"
"""Stands for the id where a collection's settings are cached; no document can be called so."""


class Collections:
    """The collections of one database."""

    def __init__(self, store: Store, cache: Cache, writes: Writes, metrics: Metrics) -> None:
        self._store = store
        self._cache = cache
        self._writes = writes
        self._memo: dict[str, tuple[float, Collection]] = {}
        self._looks = Groups(self._look_up, parallel=2, series=metrics.groups["settings"])
        self._changes = 0
        self.garbage = asyncio.Event()
        """Set when there are rows to delete that nobody can see any more."""
        self.resettled = asyncio.Event()
        """Set when settings have changed, by which indexes may be missing or too many."""

    async def find(self, name: str) -> Collection | None:
        """Return a collection, for its settings; None where there is none.

        Where there is no cache to ask they may be those of up to MEMO_SECONDS ago.
        """
        if (near := self.near(name)) is not None:
            return near[0]
        if not self._cache.answers:
            return await self._remembered(name)
        found = await self._cache.through(_key(name), lambda: self._load(name))
        return None if found.entry is None else from_entry(name, found.entry)

    def near(self, name: str) -> tuple[Collection, Entry] | None:
        """Return a collection that this process holds, with its entry; None: ask `find`."""
        held = self._cache.near(_key(name))
        found = None if held is None else from_entry(name, held)
        return None if held is None or found is None else (found, held)

    async def read(self, name: str) -> Collection:
        """Return a collection as it is now; NotFound where there is none."""
        found = await (self.find(name) if self._cache.answers else self._stored(name))
        if found is None:
            raise errors.NotFound(f"There is no collection {name!r}.")
        return found

    async def indexes_for(self, name: str, wanted: query.Query) -> query.Indexes:
        """Return the indexes of a collection; none for a query that they are of no use to."""
        if not query.may_use_indexes(wanted):
            return query.NO_INDEXES
        found = await self.find(name)
        return query.NO_INDEXES if found is None else found.indexes

    async def list(self, after: str, limit: int) -> tuple[list[Collection], str | None]:
        """Return collections by name after a name, and the name to go on from if there are more."""
        rows, following = await self._store.list_collections(after, limit)
        return [from_row(name, row) for name, row in rows], following

    async def put(
        self, name: str, settings: wire.CollectionSettings, conditions: Conditions
    ) -> tuple[Collection, bool]:
        """Replace a collection's settings, or make it; the flag tells whether it was made."""
        return await self._writes.run(self._put(name, settings, conditions))

    async def _put(
        self, name: str, settings: wire.CollectionSettings, conditions: Conditions
    ) -> tuple[Collection, bool]:
        created = False
        async with self._doubtful(name):
            if not conditions.must_exist and await self._stored(name) is None:
                created = await self._store.create_collection(name)
            if conditions.must_be_absent and not created:
                raise await self._refused(name)
            text = settings.model_dump_json(exclude_defaults=True)
            on = Conditions() if created else conditions
            row = await self._store.put_collection(name, text, on)
        if row is None:
            raise await self._refused(name)
        await self._wrote(name, row)
        self.resettled.set()
        return from_row(name, row), created

    async def patch(
        self,
        name: str,
        change: Callable[[wire.CollectionSettings], wire.CollectionSettings],
        conditions: Conditions,
    ) -> Collection:
        """Replace a collection's settings by what `change` makes of them."""
        return await self._writes.run(self._patch(name, change, conditions))

    async def _patch(
        self,
        name: str,
        change: Callable[[wire.CollectionSettings], wire.CollectionSettings],
        conditions: Conditions,
    ) -> Collection:
        async with self._doubtful(name), self._store.locked_collection(name) as locked:
            if locked is None or locked.row.settings is None:
                raise errors.NotFound(f"There is no collection {name!r}.")
            found = from_row(name, locked.row)
            if not conditions.hold(found.version, found.updated_at):
                raise _refusal(found)
            row = await locked.replace(
                change(found.settings).model_dump_json(exclude_defaults=True)
            )
        await self._wrote(name, row)
        self.resettled.set()
        return from_row(name, row)

    async def delete(self, name: str, conditions: Conditions) -> None:
        """Delete a collection with all its documents; needs If-Match."""
        if conditions.if_match is None:
            raise errors.PreconditionRequired("Deleting a collection needs If-Match.")
        await self._writes.run(self._delete(name, conditions))

    async def _delete(self, name: str, conditions: Conditions) -> None:
        version = None
        async with self._doubtful(name):
            if not conditions.contradict:
                version = await self._store.delete_collection(name, conditions)
        if version is None:
            current = await self._stored(name)
            if current is None:
                raise errors.NotFound(f"There is no collection {name!r}.")
            raise _refusal(current)
        self._changed(name)
        await self._cache.wrote(_key(name), Entry(version, None))
        self.garbage.set()
        self.resettled.set()

    async def written_in(self, name: str, write: Callable[[], Awaitable[T | None]]) -> T | None:
        """Write into a collection, which is made if it does not exist; None: the write was refused.

        A write that finds no collection stores nothing and looks like a refused one, so it is tried
        once more: by then another request may have made the collection.
        """
        written = await write()
        if written is None:
            await self._ensure(name)
            written = await write()
        return written

    async def _ensure(self, name: str) -> None:
        """Make the collection unless it is there, whatever the cache says."""
        if await self._stored(name) is not None:
            return
        async with self._doubtful(name):
            await self._store.create_collection(name)
            row = await self._store.get_collection(name)
        if row is not None:
            await self._wrote(name, row)

    async def confirm(self, name: str, known: Collection | None, incarnation: int) -> None:
        """Let the cache forget the collection where a write shows that it knows another one.

        Whoever made the collection may not have told the cache yet, or may have died before.
        """
        if self._cache.enabled and (known is None or known.incarnation != incarnation):
            self._changed(name)
            await self._cache.forget(_key(name))

    @contextmanager
    def doubtful(self, known: Collection | None, name: str, ids: Iterable[str]) -> Iterator[None]:
        """Keep documents from the cache when nobody knows whether their write was committed.

        And their collection's lists, also of a collection that nobody knew.
        """
        try:
            yield
        except errors.Unavailable as problem:
            if problem.outcome_is_unknown:
                incarnation = 0 if known is None else known.incarnation
                for id_ in ids:
                    self._cache.uncertain(Key(name, incarnation, id_))
            raise

    async def reap(self, now: datetime) -> None:
        """Delete tombstones that are old enough, and what deleted collections have left.

        One collection that takes too long, as where somebody holds its rows, keeps no other back.
        """
        async for name in self._store.names():
            try:
                while await self._store.purge(name):
                    pass
                while await self._store.reap(name, now - TOMBSTONE_LIFE):
                    pass
            except errors.QueryTooExpensive as problem:
                log.warning("upkeep failed", detail=problem.detail)

    async def _remembered(self, name: str) -> Collection | None:
        known = self._memo.get(name)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        try:
            return await self._looks.join(name, None)
        finally:
            count_statement()

    async def _look_up(self, name: str, asked: Sequence[None]) -> Sequence[Collection | None]:
        """Read a collection once, however many ask for it, and remember it."""
        changes = self._changes
        found = await self._stored(name)
        if found is not None and changes == self._changes:
            if len(self._memo) >= MAX_REMEMBERED:
                self._memo.clear()
            self._memo[name] = (time.monotonic() + MEMO_SECONDS, found)
        return [found] * len(asked)

    async def _stored(self, name: str) -> Collection | None:
        row = await self._store.get_collection(name)
        return None if row is None or row.settings is None else from_row(name, row)

    async def _load(self, name: str) -> Entry | None:
        row = await self._store.get_collection(name)
        return None if row is None else to_entry(row)

    async def _wrote(self, name: str, row: CollectionRow) -> None:
        self._changed(name)
        await self._cache.wrote(_key(name), to_entry(row))

    def _changed(self, name: str) -> None:
        """Forget what is remembered, and what a look-up under way is about to remember."""
        self._changes += 1
        self._memo.pop(name, None)

    @asynccontextmanager
    async def _doubtful(self, name: str) -> AsyncIterator[None]:
        """Keep a collection from the cache when nobody knows whether its write was committed."""
        try:
            yield
        except errors.Unavailable as problem:
            if problem.outcome_is_unknown:
                self._changed(name)
                self._cache.uncertain(_key(name))
            raise

    async def _refused(self, name: str) -> errors.Problem:
        found = await self._stored(name)
        if found is None:
            return errors.PreconditionFailed(f"There is no collection {name!r}.")
        return _refusal(found)


def _refusal(current: Collection) -> errors.PreconditionFailed:
    return errors.PreconditionFailed(
        f"The collection has version {current.version}.",
        current=msgspec.Raw(current.model.model_dump_json().encode()),
    )


@lru_cache(MAX_REMEMBERED)
def _key(name: str) -> Key:
    return Key(name, 0, SETTINGS_KEY)
