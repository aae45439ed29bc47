"""Writes of many requests in few statements and one commit, and what the cache is told of them.

With `documents`, `collections` and `transfer` the only ones that know both store and cache. A group
tells the cache after its commit and before any of it is answered. Must not know HTTP.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Final, TypeAlias

from credenza import errors, values
from credenza.batches import Batches, Change, Outcome
from credenza.cache import Cache, Entry, Key
from credenza.collection import Collection
from credenza.collections import Collections
from credenza.conditions import Conditions
from credenza.groups import MAX_WEIGHT, Groups
from credenza.rows import Row
from credenza.store import Store
from credenza.telemetry import Metrics, count_statement
from credenza.writes import Writes

PARALLEL: Final = 2
"""Groups of one kind that are under way at once: one is put together while one commits."""

ID: Final = attrgetter("id")

Modify: TypeAlias = Callable[[values.JSON], str]
"""Makes a document's value into the text of what replaces it; a Problem where it cannot."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A document, what is made of its value, and what must hold of it."""

    id: str
    modify: Modify
    size: int
    """Characters of what is asked for: it is read while it is done."""

    conditions: Conditions


Run = Callable[[str, Sequence[Any]], Coroutine[Any, Any, Sequence[Any]]]
Send = Callable[[str, Sequence[Change]], Coroutine[Any, Any, Sequence[Outcome]]]


class Grouped:
    """The creations, puts, patches and deletions of one process, by collection and kind."""

    def __init__(
        self,
        store: Store,
        batches: Batches,
        cache: Cache,
        collections: Collections,
        writes: Writes,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._batches = batches
        self._cache = cache
        self._collections = collections
        self._writes = writes
        self._written = metrics.written
        series = metrics.groups
        self._creations: Groups[str, Change, Row | None] = Groups(
            self._finished(self._create),
            parallel=PARALLEL,
            series=series["create"],
            weight=_length,
        )
        self._puts: Groups[str, Change, Outcome] = Groups(
            self._finished(partial(self._change, batches.put, "put")),
            parallel=PARALLEL,
            series=series["put"],
            subject=ID,
            weight=_length,
        )
        self._patches: Groups[str, Patch, Outcome] = Groups(
            self._finished(self._patch), parallel=PARALLEL, series=series["patch"], subject=ID
        )
        self._deletions: Groups[str, Change, Outcome] = Groups(
            self._finished(partial(self._change, batches.delete, "delete")),
            parallel=PARALLEL,
            series=series["delete"],
            subject=ID,
        )

    async def create(self, collection: str, change: Change) -> Row | None:
        """Store a document under a new id; None: the collection was deleted meanwhile."""
        try:
            return await self._creations.join(collection, change)
        finally:
            count_statement()

    async def write(self, collection: str, change: Change) -> Outcome:
        """Put or delete a document, or tell that it has to be written alone."""
        groups = self._deletions if change.data is None else self._puts
        try:
            return await groups.join(collection, change)
        finally:
            count_statement()

    async def patch(self, collection: str, patch: Patch) -> Row | None:
        """Change a document; None: it has to be changed, or refused, alone."""
        try:
            outcome = await self._patches.join(collection, patch)
        finally:
            count_statement(2)
        return outcome if isinstance(outcome, Row) else None

    async def wrote(
        self, known: Collection | None, collection: str, rows: Sequence[Row], verb: str
    ) -> None:
        """Tell the cache of rows that were committed together."""
        self._written.labels(verb).inc(len(rows))
        await self._collections.confirm(collection, known, rows[0].incarnation)
        ttl = None if known is None else known.settings.cache_ttl
        if self._cache.enabled:
            entries = {Key(collection, row.incarnation, row.id): entry_of(row) for row in rows}
            await self._cache.wrote_all(entries, ttl)

    def _finished(self, run: Run) -> Run:
        """Return what runs a group to its end, whatever becomes of who waits for it."""
        return lambda collection, changes: self._writes.run(run(collection, changes))

    async def _create(
        self, collection: str, changes: Sequence[Change]
    ) -> Sequence[Row | Exception | None]:
        known = await self._collections.find(collection) if self._cache.enabled else None
        with self._collections.doubtful(known, collection, [changes[0].id]):
            found = await self._collections.written_in(
                collection, lambda: self._inserted(collection, changes)
            )
        rows = [row for row in found or () if isinstance(row, Row)]
        if rows:
            self._written.labels("create").inc(len(rows))
            await self._collections.confirm(collection, known, rows[0].incarnation)
            await self._cache.touched(collection)
        return found or [None] * len(changes)

    async def _inserted(
        self, collection: str, changes: Sequence[Change]
    ) -> Sequence[Row | Exception | None] | None:
        found = await self._batches.insert(collection, changes)
        return None if all(row is None for row in found) else found

    async def _change(
        self, change: Send, verb: str, collection: str, changes: Sequence[Change]
    ) -> Sequence[Outcome]:
        known = await self._collections.find(collection)
        with self._collections.doubtful(known, collection, map(ID, changes)):
            outcomes = await change(collection, changes)
        rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
        if rows:
            await self.wrote(known, collection, rows, verb)
        return outcomes

    async def _patch(
        self, collection: str, patches: Sequence[Patch]
    ) -> Sequence[Outcome | errors.Problem]:
        """Write what each makes of its document, if that is still the version that was read."""
        rows = await self._store.get_documents(collection, list(map(ID, patches)))
        outcomes: dict[str, Outcome | errors.Problem] = {}
        changes: list[Change] = []
        for patch, row in zip(patches, rows, strict=True):
            if row is None or row.data is None:
                continue
            if not patch.conditions.hold(row.version, row.updated_at):
                continue
            try:
                text = await modified(row.data, patch)
            except errors.Problem as problem:
                outcomes[patch.id] = problem
            else:
                changes.append(Change(patch.id, text, Conditions(if_match=(row.version,))))
        for part in _light(changes):
            try:
                written = await self._change(self._batches.put, "patch", collection, part)
            except errors.Problem as problem:
                outcomes |= dict.fromkeys(map(ID, part), problem)
            else:
                outcomes |= zip(map(ID, part), written, strict=True)
        return [outcomes.get(patch.id) for patch in patches]


def _length(change: Change) -> int:
    """Return what a change weighs in its group: the characters that are sent."""
    return len(change.data or "")


def _light(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """Yield them in parts that weigh no more than a group may."""
    part: list[Change] = []
    weight = 0
    for change in changes:
        length = _length(change)
        if part and weight + length > MAX_WEIGHT:
            yield part
            part, weight = [], 0
        part.append(change)
        weight += length
    if part:
        yield part


async def modified(data: str, patch: Patch) -> str:
    """Return what is made of a document's value; in a thread, if either is large."""

    def run() -> str:
        return patch.modify(values.decode(data))

    is_large = max(len(data), patch.size) > values.LARGE
    return await asyncio.to_thread(run) if is_large else run()


def entry_of(row: Row) -> Entry:
    """Return what the cache keeps of a row: its representation, or a tombstone."""
    return Entry(row.version, None if row.data is None else row.document().body)
