"""METRICS_PORT: whoever dawdles there holds little, not for long, and nobody else back."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPResponse

import httpx2
import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter, Info
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from conftest import Serve
from credenza.exposition import ANSWER_SECONDS, AT_ONCE, GRACE_SECONDS, HEAD_SECONDS, exposed
from servers import PATIENCE, accepts, free_port, until

IDLE = 400
"""Connections that send nothing."""

SOON = 5.0
"""Seconds that something may take that happens at once, on a busy machine."""

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@contextmanager
def connections(port: int, number: int = 1) -> Iterator[list[socket.socket]]:
    """Open so many connections; nothing is sent."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            for _ in range(number)
        ]


def ask(connection: socket.socket) -> None:
    """Send a scrape's head."""
    connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")


def status(connection: socket.socket) -> int:
    """Return the status of the answer."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status


def is_ended(connection: socket.socket) -> bool:
    """Return whether the server has closed a connection on which nothing was sent."""
    connection.setblocking(False)
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def within(seconds: float, condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds, which is not to take longer than so many seconds."""
    begun = time.monotonic()
    until(condition, what)
    assert time.monotonic() - begun < seconds, what


def held(opened: list[socket.socket]) -> int:
    """Return how many connections the server has not closed."""
    return sum(not is_ended(connection) for connection in opened)


@contextmanager
def serving(registry: CollectorRegistry) -> Iterator[int]:
    """Serve a registry on a port, and return it."""
    port = free_port()
    with exposed(registry, "127.0.0.1", port):
        yield port


@pytest.mark.parametrize("workers", [1, 2])
def test_idle_connections_hold_little(serve: Serve, workers: int) -> None:
    """They have a thread each, few may be there, and each is closed after seconds.

    Of one process and of several, where the first one serves the metrics.
    """
    port = free_port()
    process = psutil.Process(serve(metrics_port=port, workers=workers).process.pid)
    url = f"http://127.0.0.1:{port}/metrics"
    assert httpx2.get(url).status_code == 200
    before = process.num_threads()
    with connections(port, IDLE) as opened:
        each_waits = IDLE / AT_ONCE * GRACE_SECONDS
        within(SOON + each_waits, lambda: held(opened) <= AT_ONCE, "those beyond are closed")
        assert process.num_threads() <= before + AT_ONCE
        within(HEAD_SECONDS + SOON, lambda: held(opened) == 0, "the others are closed")
        within(SOON, lambda: process.num_threads() <= before, "their threads have ended")


def test_idle_connections_keep_nobody_out() -> None:
    """Where all places are taken by those that send nothing, a scrape has theirs."""
    with serving(CollectorRegistry()) as port, connections(port, AT_ONCE) as opened:
        begun = time.monotonic()
        assert httpx2.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
        assert time.monotonic() - begun < HEAD_SECONDS / 2
        assert held(opened) < AT_ONCE


def test_heads_on_their_way_are_waited_for() -> None:
    """Where all places are taken, those who took them this moment may still send theirs."""
    with (
        serving(CollectorRegistry()) as port,
        connections(port, AT_ONCE) as opened,
        connections(port) as beyond,
    ):
        time.sleep(GRACE_SECONDS / 4)  # as long as heads may take
        for connection in opened + beyond:
            ask(connection)
        assert {status(connection) for connection in opened + beyond} == {200}


class Slow(Collector):
    """Waits until AT_ONCE wait for it, and notes how many do at the most."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()
        self._all = threading.Barrier(AT_ONCE, timeout=PATIENCE)

    def collect(self) -> Iterator[Metric]:
        """Yield no family."""
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self._all.wait()
        with self._lock:
            self._now -= 1
        yield from ()


def test_scrapes_take_turns() -> None:
    """More than may be there at once are all answered."""
    registry, slow = CollectorRegistry(), Slow()
    registry.register(slow)
    with serving(registry) as port, ExitStack() as stack:
        asked = []
        for _ in range(2 * AT_ONCE):
            asked += stack.enter_context(connections(port))
            ask(asked[-1])
        assert {status(connection) for connection in asked} == {200}
    assert slow.most == AT_ONCE


def test_a_slow_head_is_given_up() -> None:
    """A client that sends a byte now and then may take as long as one that sends none."""
    with serving(CollectorRegistry()) as port, connections(port) as (connection,):
        begun = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - begun < 2 * HEAD_SECONDS:
                connection.sendall(b"G")
                time.sleep(0.1)
        assert HEAD_SECONDS - 1 < time.monotonic() - begun < HEAD_SECONDS + SOON


def test_an_answer_that_nobody_takes_is_given_up(capfd: pytest.CaptureFixture[str]) -> None:
    """Its connection ends, and its thread; that is nothing to log."""
    registry = CollectorRegistry()
    Info("large", "More than buffers hold.", registry=registry).info({"text": "x" * 32_000_000})
    with serving(registry) as port:
        threads, begun = threading.active_count(), time.monotonic()
        with connections(port) as (connection,):
            ask(connection)
            within(SOON, lambda: threading.active_count() > threads, "it is read")
            within(ANSWER_SECONDS + SOON, lambda: threading.active_count() == threads, "it ends")
        assert time.monotonic() - begun > ANSWER_SECONDS - 1
    assert capfd.readouterr().err == ""


def test_a_client_that_goes_away_is_nothing_to_log(capfd: pytest.CaptureFixture[str]) -> None:
    """A reset connection has no traceback in the log."""
    with serving(CollectorRegistry()) as port:
        threads = threading.active_count()
        with connections(port) as (connection,):
            within(SOON, lambda: threading.active_count() > threads, "it is read")
            linger_not = b"\x01\0\0\0\0\0\0\0"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        within(SOON, lambda: threading.active_count() == threads, "it has ended")
    assert capfd.readouterr().err == ""


def test_formats_and_compression() -> None:
    """OpenMetrics and gzip are for who asks; the length tells whether an answer is whole."""
    registry = CollectorRegistry()
    Counter("seen", "Seen.", registry=registry).inc(1, {"trace_id": "a"})
    with serving(registry) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        plain = httpx2.get(url, headers={"Accept-Encoding": "identity"})
        assert plain.headers["content-type"].startswith("text/plain; version=")
        assert int(plain.headers["content-length"]) == len(plain.content)
        headers = {"Accept": OPENMETRICS, "Accept-Encoding": "gzip"}
        with httpx2.stream("GET", url, headers=headers) as answer:
            content = b"".join(answer.iter_raw())
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.headers["content-encoding"] == "gzip"
        text = gzip.decompress(content).decode()
        assert '# {trace_id="a"} 1.0' in text
        assert text.endswith("# EOF\n")
        assert httpx2.post(url).status_code == 405


def test_the_end_waits_for_nobody() -> None:
    """What is open is closed with the port, and no thread is left."""
    threads = threading.active_count()
    with ExitStack() as stack:
        with serving(CollectorRegistry()) as port:
            opened = stack.enter_context(connections(port, AT_ONCE))
            until(lambda: threading.active_count() == threads + 1 + AT_ONCE, "all are read")
        assert not accepts(port)
        within(1, lambda: held(opened) == 0, "all are closed")
    within(1, lambda: threading.active_count() == threads, "no thread is left")
