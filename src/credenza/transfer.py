"""Imports: many documents in, a chunk at a time, each chunk all or nothing.

With `documents` and `collections` the only ones that know both store and cache. Must not know where
the lines come from.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec
import uuid_utils

from credenza import errors, values, wire
from credenza.bulk import Bulk
from credenza.cache import Cache, Key
from credenza.collections import Collection, Collections
from credenza.rows import Chunk, ExistsError, Line
from credenza.settings import Settings
from credenza.telemetry import Metrics
from credenza.writes import Writes

CHUNK_LINES: Final = 500
CHUNK_BYTES: Final = 4 * 1024 * 1024
MAX_ERRORS: Final = 100
"""How many bad lines a refusal names."""

ENVELOPE_DEPTH: Final = 1
"""How much deeper a whole document nests than its data."""

AT_ONCE: Final = 16
"""How many cache entries are brought up to date at the same time."""


class OnConflict(StrEnum):
    """What becomes of a line whose id exists."""

    ERROR = "error"
    REPLACE = "replace"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Plan:
    """How an import is done; `whole`: lines are documents with their ids, else bare values."""

    collection: str
    whole: bool = False
    on_conflict: OnConflict = OnConflict.ERROR

    @property
    def is_exact(self) -> bool:
        """Whether a chunk may meet documents that it must not replace; new ids meet none."""
        return self.whole and self.on_conflict is OnConflict.ERROR


class Numbered(NamedTuple):
    """A line and its place in the import, from 1."""

    number: int
    text: bytes


class Checked(NamedTuple):
    """A chunk's documents in the order of ids, their lines' numbers by id, and what is wrong.

    Imports that write in the order of ids do not wait for each other in a circle.
    """

    documents: list[Line]
    numbers: dict[str, int]
    faults: list[dict[str, object]]


class _Whole(msgspec.Struct):
    """A line that is a whole document; versions and times of change are always new."""

    id: str
    data: msgspec.Raw
    created_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Imports:
    """Takes lines of JSON and stores each as a document."""

    def __init__(
        self,
        bulk: Bulk,
        cache: Cache,
        collections: Collections,
        writes: Writes,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._bulk = bulk
        self._cache = cache
        self._collections = collections
        self._writes = writes
        self._written = metrics.written.labels("import")
        self._max_bytes = settings.max_body_bytes
        self._max_depth = settings.max_depth

    async def run(self, plan: Plan, parts: AsyncIterable[list[bytes]]) -> wire.ImportReport:
        """Store the lines that arrive; empty ones count but mean nothing.

        ImportFailed ends it at the first chunk with a bad line: what came before is stored, and
        so it is where the import ends for another reason. Each says how much that is.
        """
        importing = _Import(plan)
        try:
            await self._take_all(importing, parts)
        except errors.PayloadTooLarge as problem:
            raise importing.failed([{"detail": problem.detail}]) from None
        except errors.Problem as problem:
            problem.members = importing.progress() | problem.members
            raise
        return wire.ImportReport(taken=importing.taken, written=importing.written)

    async def _take_all(self, importing: "_Import", parts: AsyncIterable[list[bytes]]) -> None:
        """Take chunk after chunk; one is stored while the next one is read and checked."""
        storing: asyncio.Task[None] | None = None
        try:
            async for chunk in importing.chunks(parts):
                # In a thread, because a chunk may take long to read, and requests are served
                # meanwhile.
                checked = await asyncio.to_thread(self._checked, importing.plan, chunk)
                if storing is not None:
                    await storing
                if checked.faults:
                    raise importing.failed(checked.faults)
                storing = asyncio.create_task(self._take(importing, checked, chunk[-1].number))
        except asyncio.CancelledError:
            if storing is not None:
                storing.cancel()
            raise
        finally:
            if storing is not None:
                await storing

    async def _take(self, importing: "_Import", checked: Checked, last: int) -> None:
        """Store a chunk, which ends with line `last`, or end the import because of it."""
        try:
            chunk = await self._writes.run(self._store_chunk(importing.plan, checked.documents))
        except ExistsError as error:
            raise importing.failed(
                [
                    {"line": number, "detail": f"{id_!r} exists"}
                    for id_, number in checked.numbers.items()
                    if id_ in error.ids
                ]
            ) from None
        importing.taken = last
        importing.written += chunk.written

    def _checked(self, plan: Plan, chunk: list[Numbered]) -> Checked:
        """Read a chunk's lines; of an id that comes twice the first or the last one counts."""
        documents: dict[str, Line] = {}
        numbers: dict[str, int] = {}
        faults: list[dict[str, object]] = []
        for number, text in chunk:
            try:
                line = self._line(plan, text)
            except errors.Problem as problem:
                faults.append(
                    {"line": number, "code": problem.code, "detail": problem.detail}
                    | problem.members
                )
                continue
            first = numbers.setdefault(line.id, number)
            if first == number or plan.on_conflict is OnConflict.REPLACE:
                documents[line.id] = line
            elif plan.on_conflict is OnConflict.ERROR:
                detail = f"{line.id!r} is also in line {first}"
                faults.append({"line": number, "detail": detail})
        ordered = [documents[id_] for id_ in sorted(documents)]
        return Checked(ordered, numbers, faults[:MAX_ERRORS])

    def _line(self, plan: Plan, text: bytes) -> Line:
        depth = self._max_depth + (ENVELOPE_DEPTH if plan.whole else 0)
        checked = values.check(text, max_depth=depth, max_bytes=self._max_bytes)
        if not plan.whole:
            return Line(str(uuid_utils.uuid7()), checked)
        try:
            whole = msgspec.json.decode(checked, type=_Whole)
        except msgspec.ValidationError as error:
            raise errors.Unprocessable(f"not a whole document: {error}") from None
        if not values.valid_id(whole.id):
            raise errors.InvalidId(f"{whole.id!r} is not a document's id")
        created_at = None if whole.created_at is None else wire.timestamp(whole.created_at)
        return Line(whole.id, bytes(whole.data).decode(), created_at)

    async def _store_chunk(self, plan: Plan, lines: list[Line]) -> Chunk:
        """Store a chunk and let the cache forget the documents that had been there before.

        Nobody has looked up those that have just been made.
        """
        known = await self._collections.find(plan.collection) if self._cache.enabled else None
        try:
            chunk = await self._collections.written_in(
                plan.collection,
                lambda: self._bulk.store_chunk(
                    plan.collection,
                    lines,
                    replace=plan.on_conflict is OnConflict.REPLACE,
                    exact=plan.is_exact,
                ),
            )
        except errors.Unavailable as problem:
            if problem.outcome_is_unknown and known is not None:
                self._doubt(known, lines)
            raise
        if chunk is None:
            raise errors.Unavailable("The collection was deleted meanwhile.")
        self._written.inc(chunk.written)
        if chunk.incarnation is not None and self._cache.enabled:
            await self._collections.confirm(plan.collection, known, chunk.incarnation)
            await self._forget(
                [Key(plan.collection, chunk.incarnation, id_) for id_ in chunk.replaced]
            )
        return chunk

    def _doubt(self, known: Collection, lines: list[Line]) -> None:
        for line in lines:
            self._cache.uncertain(Key(known.name, known.incarnation, line.id))

    async def _forget(self, keys: list[Key]) -> None:
        for at in range(0, len(keys), AT_ONCE):
            await asyncio.gather(*(self._cache.forget(key) for key in keys[at : at + AT_ONCE]))


class _Import:
    """One import under way: what was taken, and the lines that wait for their chunk to be full."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.taken = 0
        self.written = 0
        self._number = 0
        self._waiting: list[Numbered] = []
        self._bytes = 0

    async def chunks(self, parts: AsyncIterable[list[bytes]]) -> AsyncIterator[list[Numbered]]:
        """Yield the lines that arrive, in chunks."""
        async for part in parts:
            for chunk in self._add(part):
                yield chunk
        for chunk in self._rest():
            yield chunk

    def _add(self, lines: list[bytes]) -> Iterable[list[Numbered]]:
        """Add lines and yield the chunks that are full."""
        for text in lines:
            self._number += 1
            if not text:
                continue
            self._waiting.append(Numbered(self._number, text))
            self._bytes += len(text)
            if len(self._waiting) >= CHUNK_LINES or self._bytes >= CHUNK_BYTES:
                yield from self._rest()

    def _rest(self) -> Iterable[list[Numbered]]:
        """Yield the last chunk, if there is one."""
        chunk, self._waiting, self._bytes = self._waiting, [], 0
        if chunk:
            yield chunk

    def failed(self, faults: list[dict[str, object]]) -> errors.ImportFailed:
        """Return the refusal: what is stored, what is wrong, and the line to resume from."""
        problem = errors.ImportFailed(f"{self.taken} lines were taken before it.", errors=faults)
        problem.members |= self.progress()
        return problem

    def progress(self) -> dict[str, int]:
        """Return how many lines are stored, and from which to resume."""
        return {"taken": self.taken, "written": self.written, "line": self.taken + 1}
