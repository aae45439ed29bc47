"""What stays of each request: its canonical log line, and its place in the HTTP series.

A request only leaves a record; lines and counts are made of many records at once, some milliseconds
later, which costs each of them less. Must not know what a request is about. Belongs to the event
loop's thread.
"""

import asyncio
import time
from contextvars import Context
from typing import Final, NamedTuple, TypeAlias

import structlog

from credenza.forms import LogLevel
from credenza.logs import Lines
from credenza.tallies import Tally
from credenza.telemetry import Metrics
from credenza.tracing import Traced

FLUSH_SECONDS: Final = 0.01
"""How long a record may wait."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLASSES: Final = {number: f"{number}xx" for number in range(1, 6)}

OTHER: Final = "OTHER"
"""What any other method is called."""

NO_ROUTE: Final = "none"
"""What the route of a request to nothing that is there is called."""

BROKEN: Final = {"failed": "5xx", "unread": "4xx"}
"""How an answer counts that did not end: because the service failed, or its client read no more."""

LEVELS: Final = tuple(LogLevel)
"""From low to loud."""

MAX_KINDS: Final = 10_000
"""Kinds of requests that are remembered; there are as many as routes, statuses and costs allow."""


class Kind(NamedTuple):
    """What the lines of many requests have in common."""

    method: str
    route: str
    status: int
    cache: str | None
    sql: int
    broken: str
    """Why the answer did not end (BROKEN); empty: it did."""

    @property
    def counted(self) -> str:
        """The class of statuses that it counts as."""
        return BROKEN[self.broken] if self.broken else CLASSES[(self.status or 500) // 100]

    @property
    def level(self) -> LogLevel:
        """How loud its line is: what failed is to be read where only warnings are."""
        return LogLevel.WARNING if self.counted == CLASSES[5] else LogLevel.INFO

    @property
    def line(self) -> tuple[str, str]:
        """What stands in JSON between a line's request id and its duration, and after that."""
        cache = f'"{self.cache}"' if self.cache else "null"
        what = f'"method":"{self.method}","route":"{self.route}","status":{self.status}'
        cost = f'"cache":{cache},"sql":{self.sql}'
        broken = f',"broken":"{self.broken}"' if self.broken else ""
        always = f'"event":"request","level":"{self.level}"'
        return f'",{what},"duration_ms":', f',{cost}{broken},{always},"timestamp":"'


class Seen(NamedTuple):
    """Where requests of one kind are counted, and what their lines have in common."""

    kind: Kind
    tally: Tally
    line: tuple[str, str]
    is_wanted: bool
    """Whether there is a line of each."""


Record: TypeAlias = tuple[Seen, str, int, int, float, float, Traced | None]
"""Kind, request id, bytes received and sent, begin and end by perf_counter, and the trace."""


class Records:
    """The requests that have ended and are not written yet.

    Where JSON is wanted, lines are put together here: structlog takes longer for one than a cached
    read takes as a whole. They are the lines that structlog would write.
    """

    def __init__(self, metrics: Metrics, *, level: LogLevel, as_json: bool) -> None:
        self._metrics = metrics
        self._level = LEVELS.index(level)
        self._as_json = as_json
        self._log = structlog.get_logger()
        self._lines = Lines()
        self._seen: dict[tuple[str, str, int, str, int, str], Seen] = {}
        self._waiting: list[Record] = []
        self._second = 0.0
        self._date = ""
        metrics.records(self.flush)

    def seen(
        self, method: str, route: str, status: int, cache: str, statements: int, broken: str = ""
    ) -> Seen:
        """Return where requests of a kind are counted; a kind that is seen often is remembered."""
        key = (method, route, status, cache, statements, broken)
        if (known := self._seen.get(key)) is not None:
            return known
        named = method if method in METHODS else OTHER
        kind = Kind(named, route, status, cache or None, statements, broken)
        tally = self._metrics.http.tally(named, kind.counted, route)
        seen = Seen(kind, tally, kind.line, LEVELS.index(kind.level) >= self._level)
        if named == method and len(self._seen) < MAX_KINDS:
            self._seen[key] = seen
        return seen

    def add(self, record: Record) -> None:
        """Leave a record.

        A request id is safe in JSON, and so are a route and a method.
        """
        if not self._waiting:
            # In a context of its own: the lines are of many requests.
            loop = asyncio.get_running_loop()
            loop.call_later(FLUSH_SECONDS, self.flush, context=Context())
        self._waiting.append(record)

    def flush(self) -> None:
        """Count what waits, and write its lines."""
        records, self._waiting = self._waiting, []
        for seen, _, received, sent, started, ended, traced in records:
            trace_id = traced.trace_id if traced is not None and traced.span is not None else ""
            seen.tally.add(received, sent, ended - started, trace_id)
        wanted = [record for record in records if record[0].is_wanted]
        if wanted and self._as_json:
            self._write(wanted)
        else:
            self._log_each(wanted)

    def _write(self, records: list[Record]) -> None:
        since = time.time() - time.perf_counter()
        lines = []
        for seen, request_id, _, _, started, ended, traced in records:
            second, fraction = divmod(since + ended, 1)
            if second != self._second:
                self._second = second
                self._date = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            head, tail = seen.line
            ids = "" if traced is None else _ids(traced)
            lines.append(
                f'{{{ids}"request_id":"{request_id}{head}{(ended - started) * 1000:.3f}{tail}'
                f'{self._date}{int(fraction * 1e6):06}Z"}}\n'
            )
        self._lines.write("".join(lines))
        self._lines.flush()

    def _log_each(self, records: list[Record]) -> None:
        for seen, request_id, _, _, started, ended, traced in records:
            method, route, status, cache, sql, broken = seen.kind
            tell = self._log.warning if seen.kind.level is LogLevel.WARNING else self._log.info
            tell(
                "request",
                **({} if traced is None else traced.ids),
                request_id=request_id,
                method=method,
                route=route,
                status=status,
                duration_ms=round((ended - started) * 1000, 3),
                cache=cache,
                sql=sql,
                **({"broken": broken} if broken else {}),
            )


def _ids(traced: Traced) -> str:
    """Return what a line of JSON begins with, that it is found by its trace."""
    return "".join(f'"{name}":"{value}",' for name, value in traced.ids.items())
