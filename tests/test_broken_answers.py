"""Requests and answers that are not whole: each has its line, and counts as what it is."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from collectors import Collector, collecting
from conftest import Serve
from credenza.upkeep import MEASURE_SECONDS
from databases import connected, create_migrated
from servers import Postgres, until
from service import Running
from test_metrics import scraped, value

EXPORT = "/data/_export"
MEBIBYTES = 16
"""Of documents: more than sockets hold."""

PAGE_BYTES = 4_000_000
ABANDONED = 40

Large = tuple[Running, Collector, str]


@pytest.fixture
def large(serve: Serve, postgres: Postgres) -> Iterator[Large]:
    """A traced service with much to export, that waits a second for who does not read on."""
    name = asyncio.run(create_migrated(postgres))
    with collecting() as collector:
        service = serve(
            database_url=postgres.database(name),
            body_timeout=1,
            otel_exporter_otlp_endpoint=collector.url,
            otel_traces_sampler_arg=1,
            otel_bsp_schedule_delay=100,
        )
        lines = f"{json.dumps('x' * 4000)}\n" * (MEBIBYTES * 256)
        kind = {"Content-Type": "application/x-ndjson"}
        with service.client() as client:
            client.post("/data/_import", content=lines, headers=kind).raise_for_status()
        yield service, collector, name


def port(service: Running) -> int:
    """Return the port of a service."""
    return int(service.url.rsplit(":", 1)[1])


@contextmanager
def asked(service: Running, path: str = EXPORT) -> Iterator[socket.socket]:
    """Ask for something large, and read what comes first."""
    with socket.create_connection(("127.0.0.1", port(service)), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        yield connection


def lines(service: Running, route: str) -> list[dict[str, Any]]:
    """Return the canonical lines of the requests to a route."""
    whole = service.log().rpartition("\n")[0].splitlines()
    found = [json.loads(text) for text in whole if f'"route":"{route}"' in text]
    return [line for line in found if line["event"] == "request"]


def counted(service: Running, route: str) -> dict[str, float]:
    """Return how many requests to a route there were by class of status."""
    with service.client() as client:
        found = scraped(client)["http_requests"].samples
    ours = [each for each in found if each.labels["handler"] == route]
    return {each.labels["status"]: each.value for each in ours}


def told(large: Large, why: str, status: str) -> None:
    """Check that line, series and span tell of the one export, which began as a 200."""
    service, collector, _ = large
    until(lambda: bool(lines(service, EXPORT)), "the export's line")
    (line,) = lines(service, EXPORT)
    assert (line["status"], line["broken"]) == (200, why)
    assert counted(service, EXPORT) == {status: 1}
    until(lambda: bool(collector.named(f"GET {EXPORT}")), "the export's span")
    (span,) = collector.named(f"GET {EXPORT}")
    assert (span.failed, span.attributes["error.type"]) == (True, why)


def test_who_does_not_read_on(large: Large) -> None:
    """After BODY_TIMEOUT the answer breaks off: not a failure of the service."""
    with asked(large[0]):
        told(large, "unread", "4xx")
    assert '"event":"failed"' not in large[0].log()


def test_who_leaves(large: Large) -> None:
    """A client that closes its connection amid an answer."""
    with asked(large[0]):
        pass
    told(large, "unread", "4xx")
    assert '"event":"failed"' not in large[0].log()


@pytest.mark.parametrize("path", ["/data?limit=1000", EXPORT])
def test_what_was_for_who_left_is_not_kept(large: Large, path: str) -> None:
    """Clients that give up again and again cost no memory: what they were to get goes with them."""
    service = large[0]
    process, route = psutil.Process(service.process.pid), path.partition("?")[0]

    def leave(number: int) -> int:
        ended = len(lines(service, route)) + number
        for _ in range(number):
            with asked(service, path):
                time.sleep(0.1)  # until buffers are full
        until(lambda: len(lines(service, route)) == ended, "all are over")
        return int(process.memory_info().rss)

    before = leave(5)
    assert leave(ABANDONED) - before < ABANDONED * PAGE_BYTES / 4


def test_a_database_that_is_lost(large: Large, postgres: Postgres) -> None:
    """The client is not told that the answer is whole, and the service's failure counts."""
    service, _, name = large
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE xact_start < now()"

    async def lose() -> None:
        async with connected(postgres, name) as connection:
            await connection.execute(f"{end} AND datname = current_database()")

    with asked(service) as connection:
        asyncio.run(lose())
        rest = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    assert not rest.endswith(b"0\r\n\r\n")
    told(large, "failed", "5xx")


@pytest.mark.parametrize("digits", [b"0" * 5000, b"18446744073709551610"])
def test_lengths_that_are_none(service: Running, client: httpx2.Client, digits: bytes) -> None:
    """A claim of a body that nobody can send: the request has its line, and adds no bytes."""
    mark = f"length-{len(digits)}-{digits[:1].decode()}"
    before = scraped(client)
    with socket.create_connection(("127.0.0.1", port(service)), timeout=20) as connection:
        head = b"POST /data HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: " + mark.encode()
        connection.sendall(head + b"\r\nContent-Length: " + digits + b"\r\n\r\n")
        status = connection.recv(65536).partition(b"\r\n")[0]
    assert status.split()[1][:1] == b"4", status
    until(lambda: f'"request_id":"{mark}"' in service.log(), "a line")
    after = scraped(client)
    for route in ("/data", "none"):
        sums = [
            value(found, "http_request_size_bytes_sum", handler=route) for found in (before, after)
        ]
        assert sums[1] == sums[0], route


def test_bodies_are_counted_as_they_are_read(
    service: Running, client: httpx2.Client, collection: str
) -> None:
    """By bytes, with a length that was told before and without one."""
    route = "/v1/data/{collection}/{id}"

    def parts() -> Iterator[bytes]:
        yield b'"' + b"x" * 400
        yield b'"'

    before = scraped(client)
    client.put(f"/v1/data/{collection}/a", content=b"1234567").raise_for_status()
    client.put(f"/v1/data/{collection}/b", content=parts()).raise_for_status()
    sent = [client.get(f"/v1/data/{collection}/{each}").content for each in "abaab"]
    after = scraped(client)

    def grown(name: str) -> float:
        return value(after, name, handler=route) - value(before, name, handler=route)

    assert grown("http_request_size_bytes_sum") == 7 + 402
    assert grown("http_response_size_bytes_sum") > sum(map(len, sent))
    assert grown("http_request_size_bytes_count") == 7


class Mute(Running):
    """A service whose standard error takes nothing."""

    @property
    def errors(self) -> Path:
        """A disk that is full."""
        return Path("/dev/full")

    def log(self) -> str:
        """Return nothing: a disk that is full is read as zeros without end."""
        return ""


def test_where_no_line_can_be_written(postgres: Postgres, tmp_path: Path) -> None:
    """Requests are answered and measured as ever."""
    name = asyncio.run(create_migrated(postgres))
    service = Mute(tmp_path, database_url=postgres.database(name)).start()
    try:
        with service.client() as client:
            for _ in range(20):
                client.put("/data/a", json=1).raise_for_status()
                assert client.get("/metrics").status_code == 200
            time.sleep(MEASURE_SECONDS)
            found = scraped(client)
        put = {"handler": "/data/{id}", "method": "PUT", "status": "2xx"}
        assert value(found, "http_requests_total", **put) == 20
        assert value(found, "credenza_database_connections", state="idle") >= 1
    finally:
        service.stop()
