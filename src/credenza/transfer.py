"""Imports: many documents in, a chunk at a time, each chunk all or nothing.

With `documents`, `collections` and `grouped` the only ones that know both store and cache. Must not
know where the lines come from.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import uuid_utils

from credenza import errors, values, wire
from credenza.bulk import Bulk
from credenza.cache import Cache, Key
from credenza.collections import Collections
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

_MOMENT: Final = wire.timestamp(wire.EPOCH)
ENVELOPE_BYTES: Final = len(
    wire.represent("x" * values.MAX_ID, 2**63 - 1, _MOMENT, _MOMENT, data="")
)
"""How much longer the line of a whole document can be than its data, as exports write it."""

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


class Part(NamedTuple):
    """Lines that follow each other in an import, and the number of the first; blank ones empty."""

    first: int
    lines: list[bytes]

    @property
    def last(self) -> int:
        """The number of the last line."""
        return self.first + len(self.lines) - 1


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


def max_line(settings: Settings) -> int:
    """Return how many bytes a line may have: those of the longest that an export can write."""
    return settings.max_text_bytes + ENVELOPE_BYTES


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
        self.max_line = max_line(settings)
        self._max_text = settings.max_text_bytes
        self._max_depth = settings.max_depth

    async def run(self, plan: Plan, lines: AsyncIterable[list[bytes]]) -> wire.ImportReport:
        """Store the lines that arrive; empty ones count but mean nothing.

        ImportFailed ends it at the first chunk with a bad line: what came before is stored, and
        so it is where the import ends for another reason. Each says how much that is.
        """
        importing = _Import(plan)
        try:
            await self._take_all(importing, lines)
        except errors.PayloadTooLarge as problem:
            raise importing.failed([_fault(problem.members["line"], problem)]) from None
        except errors.Problem as problem:
            problem.members = importing.progress() | problem.members
            raise
        return wire.ImportReport(taken=importing.taken, written=importing.written)

    async def _take_all(self, importing: "_Import", lines: AsyncIterable[list[bytes]]) -> None:
        """Take chunk after chunk; one is stored while the next one is read and checked."""
        storing = _Behind()
        try:
            async for part in importing.parts(lines):
                # In a thread, because it may take long, and requests are served meanwhile.
                checked = await asyncio.to_thread(self._checked, importing.plan, part)
                await storing.end()
                importing.refuse(checked.faults)
                storing.begin(self._take(importing, checked, part.last))
        except Exception:
            await storing.end()  # what went wrong there was before
            raise
        except BaseException:
            storing.drop()
            raise
        await storing.end()

    async def _take(self, importing: "_Import", checked: Checked, last: int) -> None:
        """Store a chunk, which ends with line `last`, or end the import because of it."""
        written = 0
        try:
            if checked.documents:
                store = self._store_chunk(importing.plan, checked.documents)
                written = (await self._writes.run(store)).written
        except ExistsError as error:
            raise importing.failed(
                [
                    _fault(number, errors.PreconditionFailed(f"{id_!r} exists"))
                    for id_, number in checked.numbers.items()
                    if id_ in error.ids
                ]
            ) from None
        importing.taken = last
        importing.written += written

    def _checked(self, plan: Plan, part: Part) -> Checked:
        """Read a chunk's lines; of an id that comes twice the first or the last one counts."""
        documents: dict[str, Line] = {}
        numbers: dict[str, int] = {}
        faults: list[dict[str, object]] = []
        for number, text in enumerate(part.lines, part.first):
            if not text:
                continue
            try:
                line = self._line(plan, text)
            except errors.Problem as problem:
                faults.append(_fault(number, problem))
                continue
            first = numbers.setdefault(line.id, number)
            if first == number or plan.on_conflict is OnConflict.REPLACE:
                documents[line.id] = line
            elif plan.on_conflict is OnConflict.ERROR:
                twice = errors.Unprocessable(f"{line.id!r} is also in line {first}")
                faults.append(_fault(number, twice))
        ordered = [documents[id_] for id_ in sorted(documents)]
        return Checked(ordered, numbers, faults[:MAX_ERRORS])

    def _line(self, plan: Plan, text: bytes) -> Line:
        if not plan.whole:
            return Line(str(uuid_utils.uuid7()), self._check(text))
        try:
            whole = msgspec.json.decode(text.decode(), type=_Whole)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            depth = self._max_depth + ENVELOPE_DEPTH
            values.check(text, max_depth=depth, max_text=self.max_line)
            raise errors.Unprocessable(f"not a whole document: {error}") from None
        try:
            data = self._check(bytes(whole.data))
        except errors.UnrepresentableJson as problem:
            for fault in problem.members["errors"]:
                fault["pointer"] = f"/data{fault['pointer']}"
            raise
        if not values.valid_id(whole.id):
            raise errors.InvalidId(f"{whole.id!r} is not a document's id")
        try:
            created_at = None if whole.created_at is None else wire.timestamp(whole.created_at)
        except OverflowError:
            raise errors.Unprocessable(
                "created_at is, in UTC, before year 1 or after 9999"
            ) from None
        return Line(whole.id, data, created_at)

    def _check(self, text: bytes) -> str:
        return values.check(text, max_depth=self._max_depth, max_text=self._max_text)

    async def _store_chunk(self, plan: Plan, lines: list[Line]) -> Chunk:
        """Store a chunk and let the cache forget the documents that had been there before.

        Nobody has looked up those that have just been made.
        """
        known = await self._collections.find(plan.collection) if self._cache.enabled else None
        with self._collections.doubtful(known, plan.collection, (line.id for line in lines)):
            chunk = await self._collections.written_in(
                plan.collection,
                lambda: self._bulk.store_chunk(
                    plan.collection,
                    lines,
                    replace=plan.on_conflict is OnConflict.REPLACE,
                    exact=plan.is_exact,
                ),
            )
        if chunk is None:
            raise errors.Unavailable("The collection was deleted meanwhile.")
        self._written.inc(chunk.written)
        if chunk.incarnation is not None and self._cache.enabled:
            await self._collections.confirm(plan.collection, known, chunk.incarnation)
            await self._forget(
                [Key(plan.collection, chunk.incarnation, id_) for id_ in chunk.replaced]
            )
            await self._cache.touched(plan.collection)
        return chunk

    async def _forget(self, keys: list[Key]) -> None:
        for at in range(0, len(keys), AT_ONCE):
            await asyncio.gather(*(self._cache.forget(key) for key in keys[at : at + AT_ONCE]))


def _fault(line: int, problem: errors.Problem) -> dict[str, object]:
    """Return what is wrong with a line, as a refusal names it."""
    return {"line": line, "code": problem.code, "detail": problem.detail} | problem.members


class _Behind:
    """A job that goes on behind what is done meanwhile; one at a time."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def begin(self, job: Coroutine[Any, Any, None]) -> None:
        """Begin a job; the last one has come to its end."""
        self._task = asyncio.create_task(job)

    async def end(self) -> None:
        """Wait for the job, if there is one; what it raises is raised here, once."""
        task, self._task = self._task, None
        if task is not None:
            await task

    def drop(self) -> None:
        """Wait no more."""
        if self._task is not None:
            self._task.cancel()


class _Import:
    """One import under way: what was taken, and the lines that wait for their chunk to be full."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.taken = 0
        self.written = 0
        self._first = 1
        self._waiting: list[bytes] = []
        self._bytes = 0

    async def parts(self, lines: AsyncIterable[list[bytes]]) -> AsyncIterator[Part]:
        """Yield the lines that arrive, as many at once as a chunk has."""
        async for some in lines:
            for line in some:
                self._waiting.append(line)
                self._bytes += len(line)
                if len(self._waiting) == CHUNK_LINES or self._bytes >= CHUNK_BYTES:
                    yield self._cut()
        if self._waiting:
            yield self._cut()

    def _cut(self) -> Part:
        part = Part(self._first, self._waiting)
        self._first += len(self._waiting)
        self._waiting, self._bytes = [], 0
        return part

    def refuse(self, faults: list[dict[str, object]]) -> None:
        """Raise the refusal of a chunk with bad lines."""
        if faults:
            raise self.failed(faults)

    def failed(self, faults: list[dict[str, object]]) -> errors.ImportFailed:
        """Return the refusal: what is stored, what is wrong, and the line to resume from."""
        problem = errors.ImportFailed(f"{self.taken} lines were taken before it.", errors=faults)
        problem.members |= self.progress()
        return problem

    def progress(self) -> dict[str, int]:
        """Return how many lines are stored, and from which to resume."""
        return {"taken": self.taken, "written": self.written, "line": self.taken + 1}
