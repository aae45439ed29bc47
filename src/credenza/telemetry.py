"""The whole vocabulary of metrics, in one file.

Must not know who measures. Names are a contract (`docs/reference/metrics.md` is made from it): HTTP
series keep the names and labels of prometheus-fastapi-instrumentator, ours begin with `credenza_`.
Labels are route templates and closed vocabularies, never what a client sends.
"""

import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import cache
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from credenza import __version__
from credenza.cgroups import memory_limit
from credenza.processes import START, Processes, started
from credenza.tallies import Count, Refresh, Requests

FAST = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bucket bounds in seconds, from what a cached read takes to what the query time-out allows."""

# When a series began is a series more of each, which nothing asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types

MEMBERS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
"""Bucket bounds of a group's members."""

DATABASE_ERRORS: Final = ("away", "busy", "failed", "timeout", "refused")

GROUPS: Final = ("create", "put", "patch", "delete", "read", "state", "settings")
"""Kinds of groups: writes of documents, reads of documents, of lists' states and of settings."""

REFUSALS: Final = {
    "requests": "MAX_IN_FLIGHT are under way",
    "exports": "as many exports as may be",
    "groups": "too many wait for a group",
}
"""What there is too much of where a request is answered 503 `overloaded`."""


class Trace:
    """What one request has cost so far; `observe` makes it and writes it to the log line."""

    __slots__ = ("cache", "statements", "ttl")

    def __init__(self) -> None:
        self.statements = 0
        self.cache = ""
        self.ttl: float | None = None


_trace: ContextVar[Trace | None] = ContextVar("credenza_trace", default=None)


def begin_trace(trace: Trace) -> None:
    """Count in it for the request that runs in this context."""
    _trace.set(trace)


def count_statement(number: int = 1) -> None:
    """Count SQL statements for the request under way, if there is one."""
    trace = _trace.get()
    if trace is not None:
        trace.statements += number


def note_cache(outcome: str, ttl: float | None = None) -> None:
    """Note how the cache answered the request under way: hit-near, hit-redis, miss, bypass.

    `ttl` is for how many seconds more it may answer so.
    """
    trace = _trace.get()
    if trace is not None:
        trace.cache, trace.ttl = outcome, ttl


class GroupSeries:
    """The series of groups of one kind."""

    def __init__(self, kind: str, members: Histogram, waiting: Gauge, refused: Counter) -> None:
        self.kind = kind
        self.members = members
        self.refused = refused
        """Counts who is one too many, of any kind."""
        self.waiting: Callable[[], int] = lambda: 0
        """Tells how many wait for a group to begin."""
        self._waiting = waiting

    def flush(self) -> None:
        """Bring the gauge up to date."""
        self._waiting.set(self.waiting())


class Metrics:
    """Every series of one process, in a registry of its own.

    With `aggregated`, what is exposed is the sum over all processes that share the folder named by
    `PROMETHEUS_MULTIPROC_DIR` (prometheus-client's multiprocess mode).
    """

    def __init__(self, *, aggregated: bool = False) -> None:
        self.registry = CollectorRegistry()
        self._aggregated = aggregated
        self._flush_records: Callable[[], None] = lambda: None
        self.refresh = Refresh(self.flush)
        self.registry.register(self.refresh)
        self.http = Requests(self.registry, FAST)
        self.in_flight = self._gauge(
            "credenza_requests_in_flight", "Requests under way.", mode="livesum"
        )
        refused = self._counter(
            "credenza_requests_refused_total",
            "Requests answered 503 for overload, by reason: "
            + ", ".join(f"{reason} ({meaning})" for reason, meaning in REFUSALS.items())
            + ".",
            "reason",
        )
        self.refused = {reason: refused.labels(reason) for reason in REFUSALS}
        self.cache = self._counter(
            "credenza_cache_total",
            "Look-ups and failures of the cache by layer (near, redis) and outcome "
            "(hit, miss, error).",
            "layer",
            "outcome",
        )
        self.near_hits = Count(self.cache.labels("near", "hit"))
        self.near_misses = Count(self.cache.labels("near", "miss"))
        self.redis = self._histogram(
            "credenza_redis_seconds",
            "Seconds until Redis has answered an operation, or it was given up, by operation.",
            FAST,
            "operation",
        )
        self.breaker = self._gauge(
            "credenza_cache_breaker_open", "1 while Redis is not asked because it failed."
        )
        self.near_bytes = self._gauge(
            "credenza_cache_near_bytes", "Bytes held by the near cache.", mode="livesum"
        )
        self.shelf_bytes = self._gauge(
            "credenza_cache_list_bytes", "Bytes held of lists, in each process.", mode="livesum"
        )
        self.invalidation = self._histogram(
            "credenza_cache_invalidation_seconds",
            "Seconds from a write's message to its arrival in another process.",
            FAST,
        )
        # A time and no age: who is stopped cannot tell how old its own is, nor others for it.
        self.heartbeat = self._gauge(
            "credenza_cache_heartbeat_timestamp_seconds",
            "When the last heartbeat was sent that Redis has answered on the channel of changes, "
            "in seconds since 1970; until then the start, and 0 without Redis.",
            mode="livemin",
        )
        self.pool = self._gauge(
            "credenza_database_connections",
            "Connections of the pool by state (idle, busy).",
            "state",
            mode="livesum",
        )
        self.pool_size = self._gauge(
            "credenza_database_connections_max",
            "Connections that the pool may have.",
            mode="livesum",
        )
        self.database_up = self._gauge(
            "credenza_database_up",
            "1 while the database answers as it must, 0 since it does not.",
            mode="livemax",
        )
        self.indexes_missing = self._gauge(
            "credenza_indexes_missing",
            "Indexes that collections' settings ask for and that are not made yet.",
            mode="livemax",
        )
        self.database_wait = self._histogram(
            "credenza_database_wait_seconds", "Seconds until the pool lent a connection.", FAST
        )
        self._statements = self._histogram(
            "credenza_database_statement_seconds",
            "Seconds from sending an SQL statement to its last row, by name.",
            FAST,
            "statement",
        )
        self.statement: Callable[[str], Histogram] = cache(self._statements.labels)
        """Returns the series of the statement of that name."""
        errors = self._counter(
            "credenza_database_errors_total",
            "Failures by kind: away (the connection is lost or cannot be made), busy (the pool "
            "lent none in time), failed (the database says that it cannot), timeout (a statement "
            "was given up), refused (a client's fault).",
            "kind",
        )
        self.database_errors = {kind: errors.labels(kind) for kind in DATABASE_ERRORS}
        members = self._histogram(
            "credenza_group_members",
            f"Members of each group that shares a statement, by kind ({', '.join(GROUPS)}).",
            MEMBERS,
            "kind",
        )
        waiting = self._gauge(
            "credenza_groups_waiting",
            "Requests that wait for a group to begin, by kind.",
            "kind",
            mode="livesum",
        )
        self.groups = {
            kind: GroupSeries(
                kind, members.labels(kind), waiting.labels(kind), self.refused["groups"]
            )
            for kind in GROUPS
        }
        self.written = self._counter(
            "credenza_documents_written_total",
            "Documents written, by verb (create, put, patch, delete, import).",
            "verb",
        )
        self._memory_limit = self._gauge(
            "credenza_memory_limit_bytes",
            "Bytes that all processes of the service may hold: the least limit of their control "
            "groups, where there is none the machine's memory.",
            mode="livemostrecent",
        )
        self._measure_process()
        # A gauge, because prometheus-client's Info does not work with several processes.
        self._gauge("credenza_build_info", "1, with the version that runs.", "version").labels(
            __version__
        ).set(1)

    @property
    def exposed(self) -> CollectorRegistry:
        """The registry whose series are shown to Prometheus."""
        if not self._aggregated:
            return self.registry
        registry = CollectorRegistry()
        registry.register(Processes(os.getppid()))
        return registry

    def flush(self) -> None:
        """Bring the series up to date that are counted beside; in the event loop's thread."""
        self._flush_records()
        self._memory_limit.set(memory_limit())
        for tally in (self.http, self.near_hits, self.near_misses):
            tally.flush()
        for series in self.groups.values():
            series.flush()

    def records(self, flush: Callable[[], None]) -> None:
        """Take what brings the tallies up to date, which are fed from records now and then."""
        self._flush_records = flush

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return all series in a format that `accept` names, and its media type.

        Without one it is Prometheus's text format; OpenMetrics also has exemplars.
        """
        self.flush()
        encode, media_type = choose_encoder(accept)
        return encode(self.exposed), media_type

    def _measure_process(self) -> None:
        """Measure this process; where there are several, `Processes` does it for all of them.

        But for their starts: that of one which has ended again is not to be forgotten.
        """
        if not self._aggregated:
            ProcessCollector(registry=self.registry)
        elif (begun := started()) is not None:
            meaning = "Latest start of a process since unix epoch in seconds."
            self._gauge(START, meaning, mode="max").set(begun)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self.registry)

    def _histogram(self, name: str, help_: str, bounds: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, help_, labels, buckets=bounds, registry=self.registry)

    def _gauge(self, name: str, help_: str, *labels: str, mode: Any = "livemax") -> Gauge:
        return Gauge(name, help_, labels, registry=self.registry, multiprocess_mode=mode)
