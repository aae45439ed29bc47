"""Counts of the hot paths: plain numbers, handed to prometheus-client now and then.

One observation in prometheus-client takes a microsecond or two and each request has five, which is
more than a cached read takes as a whole. Must not know what is counted. A tally belongs to the
event loop's thread; others ask for a `refresh`.
"""

import asyncio
import concurrent.futures
import contextlib
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import prometheus_client
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Exemplar

REFRESH_SECONDS: Final = 1.0
"""How long a scrape from another thread waits for a busy event loop."""


class Histogram(prometheus_client.Histogram):
    """A histogram that takes many observations at once."""

    def add(self, buckets: Sequence[int], total: float, exemplars: Mapping[int, Exemplar]) -> None:
        """Add observations by the number in each bucket, their sum, and an example for some."""
        for bucket, number in zip(self._buckets, buckets, strict=True):
            if number:
                bucket.inc(number)
        for place, exemplar in exemplars.items():
            self._buckets[place].set_exemplar(exemplar)
        self._sum.inc(total)


class Summary(prometheus_client.Summary):
    """A summary that takes many observations at once."""

    def add(self, number: int, total: float) -> None:
        """Add observations by their number and sum."""
        self._count.inc(number)
        self._sum.inc(total)


class Count:
    """What a counter grows by until the next flush."""

    __slots__ = ("_counter", "number")

    def __init__(self, counter: prometheus_client.Counter) -> None:
        self.number = 0
        self._counter = counter

    def flush(self) -> None:
        """Hand it over."""
        number, self.number = self.number, 0
        self._counter.inc(number)


class Tally:
    """What requests of one route, method and class of status add up to until the next flush."""

    __slots__ = ("_bounds", "buckets", "exemplars", "number", "received", "seconds", "sent")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.buckets = [0] * (len(self._bounds) + 1)
        self.number = self.received = self.sent = 0
        self.seconds = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def add(self, received: int, sent: int, seconds: float, trace_id: str = "") -> None:
        """Count a request; sizes in bytes. One with a trace stands for others of its bucket."""
        self.number += 1
        self.received += received
        self.sent += sent
        self.seconds += seconds
        place = bisect_left(self._bounds, seconds)
        self.buckets[place] += 1
        if trace_id:
            self.exemplars[place] = Exemplar({"trace_id": trace_id}, seconds, time.time())


class Requests:
    """The HTTP series, with the names and labels of prometheus-fastapi-instrumentator."""

    def __init__(self, registry: CollectorRegistry, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._tallies: dict[tuple[str, str, str], Tally] = {}
        self._number = prometheus_client.Counter(
            "http_requests_total",
            "Requests by method, class of status and route. An answer that broke off counts as "
            "5xx, or as 4xx where its client did not read on.",
            ("method", "status", "handler"),
            registry=registry,
        )
        self._received = Summary(
            "http_request_size_bytes",
            "Bytes of requests' bodies that were read, by route.",
            ("handler",),
            registry=registry,
        )
        self._sent = Summary(
            "http_response_size_bytes",
            "Content-Length of responses by route.",
            ("handler",),
            registry=registry,
        )
        self._all_seconds = Histogram(
            "http_request_duration_highr_seconds",
            "Seconds that requests take, for percentiles over all routes.",
            buckets=bounds,
            registry=registry,
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Seconds that requests take, by method and route.",
            ("method", "handler"),
            buckets=bounds,
            registry=registry,
        )

    def tally(self, method: str, status: str, route: str) -> Tally:
        """Return where such requests are counted, always the same; `status` is a class (`2xx`)."""
        return self._tallies.setdefault((method, status, route), Tally(self._bounds))

    def flush(self) -> None:
        """Hand all over."""
        for (method, status, route), tally in self._tallies.items():
            if not tally.number:
                continue
            self._number.labels(method, status, route).inc(tally.number)
            self._received.labels(route).add(tally.number, tally.received)
            self._sent.labels(route).add(tally.number, tally.sent)
            counted = tally.buckets, tally.seconds, tally.exemplars
            self._all_seconds.add(*counted)
            self._seconds.labels(method, route).add(*counted)
            tally.clear()


class Refresh(Collector):
    """Has no series: where it stands first in a registry, a scrape sees what is not flushed yet."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._loop: asyncio.AbstractEventLoop | None = None

    def follow(self) -> None:
        """Flush in the thread of the event loop that runs here, from now on."""
        self._loop = asyncio.get_running_loop()

    def describe(self) -> tuple[()]:
        """Tell that it has no series."""
        return ()

    def collect(self) -> tuple[()]:
        """Flush; from another thread by way of the event loop, unless that is too busy."""
        if self._loop is None or self._loop is _running_loop():
            self._flush()
            return ()
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(self._flush_for, done)
        with contextlib.suppress(TimeoutError):
            done.result(REFRESH_SECONDS)
        return ()

    def _flush_for(self, waiting: "concurrent.futures.Future[None]") -> None:
        self._flush()
        waiting.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None
