"""Traces: what is sent to a collector of a request, whose trace it is, and what it is found by."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from collectors import Collector, Span, collecting
from conftest import Serve
from credenza.spans import FLUSH_SECONDS
from databases import connected, create_migrated
from servers import Postgres, Valkey, free_port, until
from service import Running
from test_groups import LOCK, under_way

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}

Start = Callable[..., Running]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector of this module's services."""
    with collecting() as found:
        yield found


@pytest.fixture
def start(serve: Serve, postgres: Postgres, collector: Collector) -> Start:
    """Start a service that traces each request."""

    def run(**settings: Any) -> Running:
        collector.spans.clear()
        collector.bodies.clear()
        name = settings.pop("name", None) or asyncio.run(create_migrated(postgres))
        traced = {
            "otel_exporter_otlp_endpoint": collector.url,
            "otel_traces_sampler_arg": 1,
            "otel_bsp_schedule_delay": 100,
        }
        return serve(database_url=postgres.database(name), **traced | settings)

    return run


def one(collector: Collector, name: str) -> Span:
    """Return the one span of that name, once it has arrived."""
    until(lambda: len(collector.named(name)) == 1, f"{name} among the spans")
    return collector.named(name)[0]


def line(service: Running, answer: httpx2.Response) -> dict[str, Any]:
    """Return the log line of a request."""
    wanted = answer.headers["x-request-id"]
    found: list[dict[str, Any]] = []

    def written() -> bool:
        lines = [json.loads(text) for text in service.log().splitlines() if wanted in text]
        found[:] = [each for each in lines if each["event"] == "request"]
        return bool(found)

    until(written, "a log line")
    return found[0]


def test_a_read_is_a_trace_of_what_it_waits_for(
    start: Start, collector: Collector, valkey: Valkey
) -> None:
    """HTTP, Redis, the group and its SQL statement; the log line names trace and span."""
    service = start(redis_url=valkey.url)
    with service.client() as client:
        until(lambda: client.get("/health").json()["status"] == "ok", "the cache is not used")
        id_ = client.post("/v1/data/c", json={"secret": "treasure"}).json()["id"]
        answer = client.get(f"/v1/data/c/{id_}")
    root = one(collector, "GET /v1/data/{collection}/{id}")
    assert (root.kind, root.parent, root.failed) == ("SERVER", "", False)
    assert root.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/data/{collection}/{id}",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "credenza.request_id": answer.headers["x-request-id"],
        "credenza.cache": "miss",
    }
    settings = ["redis look", "get_collection", "redis fill"]
    assert collector.below(root) == [*settings, "redis look", "group read", "redis fill"]
    group = one(collector, "group read")
    assert (group.links, group.attributes) == ([root.id], {"credenza.group.members": 1})
    assert collector.below(group) == ["get_documents"]
    statement = next(span for span in collector.spans if span.parent == group.id)
    assert (statement.kind, statement.trace) == ("CLIENT", root.trace)
    assert statement.attributes == {"db.system.name": "postgresql"}
    assert root.began <= group.began <= statement.began <= statement.ended <= root.ended
    found = line(service, answer)
    assert (found["trace_id"], found["span_id"]) == (root.trace, root.id)
    assert {resource["service.name"] for resource in collector.resources} == {"credenza"}


def test_a_held_document_is_a_span_alone(
    start: Start, collector: Collector, valkey: Valkey
) -> None:
    """A hit of the near cache waits for nothing, and is traced all the same."""
    with start(redis_url=valkey.url).client() as client:
        until(lambda: client.get("/health").json()["status"] == "ok", "the cache is not used")
        client.put("/data/a", json=1)
        for _ in range(3):
            answer = client.get("/data/a")
    assert answer.headers["cache-status"].startswith("credenza; hit; ttl=")
    until(lambda: len(collector.named("GET /data/{id}")) == 3, "all requests")
    root = max(collector.named("GET /data/{id}"), key=lambda span: span.began)
    assert root.attributes["credenza.cache"] == "hit-near"
    assert collector.below(root) == []


def test_nothing_that_is_anyones_is_sent(start: Start, collector: Collector) -> None:
    """Neither documents nor their names, nor what went wrong with one."""
    with start().client() as client:
        client.put("/v1/data/hidden/treasure", json={"gold": "doubloons"})
        client.patch("/v1/data/hidden/treasure", json={"more": "guineas"})
        client.get("/v1/data/hidden?gold=eq.doubloons")
        client.put("/v1/data/hidden/treasure", content=b"{doubloons")
    until(lambda: len(collector.named("PUT /v1/data/{collection}/{id}")) == 2, "all requests")
    sent = b"".join(collector.bodies)
    assert not re.search(rb"hidden|treasure|doubloons|guineas", sent)


async def test_who_shares_a_statement_is_linked_to_it(
    start: Start, collector: Collector, postgres: Postgres
) -> None:
    """A group's span is below one of its members, and linked to each of them."""
    name = await create_migrated(postgres)
    service = await asyncio.to_thread(start, name=name)
    async with service.async_client() as client, connected(postgres, name) as connection:
        for number in range(12):
            await client.put(f"/data/d{number}", json=0)
        until(lambda: len(collector.named("PUT /data/{id}")) == 12, "the first requests")
        collector.spans.clear()
        async with connection.transaction():
            await connection.execute(LOCK)
            waiting = [asyncio.create_task(client.put(f"/data/d{n}", json=1)) for n in range(12)]
            await under_way(client, len(waiting))
        await asyncio.gather(*waiting)
    await asyncio.to_thread(
        until, lambda: len(collector.named("PUT /data/{id}")) == 12, "all requests"
    )
    requests = {span.id: span for span in collector.named("PUT /data/{id}")}
    groups = collector.named("group put")
    assert len(groups) < 12
    assert sorted(link for group in groups for link in group.links) == sorted(requests)
    for group in groups:
        assert group.parent == group.links[0]
        assert group.attributes["credenza.group.members"] == len(group.links)
        assert collector.below(group) == ["put_documents"]


@pytest.mark.parametrize("sampler", ["parentbased_traceidratio", "traceidratio"])
def test_whose_trace_it_is(start: Start, collector: Collector, sampler: str) -> None:
    """A `traceparent` is taken over; whether it also decides is a setting."""
    asks_parent = sampler.startswith("parent")
    service = start(otel_traces_sampler=sampler, otel_traces_sampler_arg=0 if asks_parent else 1)
    with service.client() as client:
        sampled = client.get("/data", headers=SAMPLED)
        other = client.get("/data", headers=NOT_SAMPLED)
        client.get("/data")
    assert line(service, sampled)["trace_id"] == line(service, other)["trace_id"] == TRACE
    expected = 1 if asks_parent else 3
    until(lambda: len(collector.named("GET /data")) >= expected, "spans")
    spans = collector.named("GET /data")
    assert len(spans) == expected
    assert [span.parent for span in spans if span.trace == TRACE] == [PARENT] * min(expected, 2)


def test_the_same_traces_everywhere(start: Start, collector: Collector) -> None:
    """Of other systems' traces those are recorded that OpenTelemetry's own sampler records."""
    ratio, random = 0.3, Random(4711)
    ids = [random.getrandbits(128) for _ in range(200)]
    sampler = TraceIdRatioBased(ratio)

    def is_sampled(trace: int) -> bool:
        return sampler.should_sample(None, trace, "").decision is Decision.RECORD_AND_SAMPLE

    expected = {f"{each:032x}" for each in ids if is_sampled(each)}
    service = start(otel_traces_sampler="traceidratio", otel_traces_sampler_arg=ratio)
    with service.client() as client:
        for each in ids:
            client.get("/data", headers={"traceparent": f"00-{each:032x}-{PARENT}-00"})
        for _ in range(1000):
            client.get("/v1")
    assert service.stop() == 0
    assert {span.trace for span in collector.named("GET /data")} == expected
    assert 220 < len(collector.named("GET /v1")) < 380


def test_what_other_systems_have_added(start: Start, collector: Collector) -> None:
    """`tracestate` goes with each span of the trace (W3C Trace Context §3.3), if it is one.

    The log has nothing of one that is none: it is a client's, who need not be known.
    """
    service = start()
    with service.client() as client:
        client.put("/data/a", json=1, headers=SAMPLED | {"tracestate": "one=1,two=2"})
        client.get("/v1", headers=SAMPLED | {"tracestate": "password=hunter2 = x"})
        client.get("/v1", headers=SAMPLED | {"tracestate": f"one={'1' * 509}"})
        client.get("/v1", headers={"tracestate": "one=1"})
    until(lambda: len(collector.named("GET /v1")) == 3, "spans")
    assert "hunter2" not in service.log()
    assert one(collector, "PUT /data/{id}").state == "one=1,two=2"
    assert {span.state for span in collector.named("group put")} == {"one=1,two=2"}
    assert {span.state for span in collector.named("GET /v1")} == {""}


def test_what_has_no_route(start: Start, collector: Collector) -> None:
    """A span is named by what is known, and says nothing that a client made up."""
    with start().client() as client:
        client.get("/nowhere")
        client.request("BREW", "/nowhere")
    root = one(collector, "GET")
    assert (root.attributes["http.request.method"], "http.route" in root.attributes) == (
        "GET",
        False,
    )
    other = one(collector, "HTTP")
    assert other.attributes["http.request.method"] == "_OTHER"
    assert not other.failed


@pytest.mark.parametrize(
    "value",
    [
        *("", "x", f"00-{TRACE}-{PARENT}", f"00-{TRACE}-{PARENT}-01-more"),
        *(f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE.upper()}-{PARENT}-01"),
        *(f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01"),
    ],
)
def test_a_traceparent_that_is_none_counts_as_absent(
    client: httpx2.Client, service: Running, value: str
) -> None:
    """W3C Trace Context §3.2: what cannot be read is left; a newer version may say more."""
    answer = client.get("/data", headers={"traceparent": value})
    assert "trace_id" not in line(service, answer)
    newer = client.get("/data", headers={"traceparent": f"cc-{TRACE}-{PARENT}-01-more"})
    assert line(service, newer)["trace_id"] == TRACE


def test_a_failure_shows(start: Start, collector: Collector, postgres: Postgres) -> None:
    """A request that is answered 5xx is marked, with the status as the kind of error."""
    with start().client() as client:
        client.put("/data/a", json=1)
        postgres.stop()
        try:
            assert client.get("/data").status_code == 503
        finally:
            postgres.start()
        until(lambda: client.get("/health/ready").status_code == 200, "readiness")
    root = one(collector, "GET /data")
    assert (root.failed, root.attributes["error.type"]) == (True, "503")
    assert root.attributes["http.response.status_code"] == 503


def test_a_statement_that_fails_shows(
    start: Start, collector: Collector, postgres: Postgres
) -> None:
    """It is marked, with the error's type and not its text."""
    name = asyncio.run(create_migrated(postgres))

    async def refuse_all() -> None:
        async with connected(postgres, name) as connection:
            await connection.execute("ALTER TABLE documents ADD CHECK (id = '') NOT VALID")

    with start(name=name).client() as client:
        asyncio.run(refuse_all())
        assert client.put("/data/a", json="treasure").status_code == 500
    root = one(collector, "PUT /data/{id}")
    until(lambda: len(collector.named("put_document")) == 2, "the second try's statement")
    statement = max(collector.named("put_document"), key=lambda span: span.began)
    assert statement.attributes["error.type"] == "CheckViolationError"
    assert {span.id for span in collector.spans if span.failed} == {root.id, statement.id}
    assert b"treasure" not in b"".join(collector.bodies)


def test_an_exemplar_names_the_trace(start: Start, collector: Collector) -> None:
    """OpenMetrics shows for a bucket a trace that is in it; the text format has no place for it."""
    with start().client() as client:
        client.get("/data").raise_for_status()
        plain = client.get("/metrics")
        rich = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert rich.headers["content-type"].startswith("application/openmetrics-text")
    assert "# {" not in plain.text
    root = one(collector, "GET /data")
    pattern = r'http_request_duration_seconds_bucket\{handler="/data",.*# \{trace_id="(\w+)"\}'
    assert set(re.findall(pattern, rich.text)) == {root.trace}


def test_the_last_requests_arrive(start: Start, collector: Collector) -> None:
    """A service that ends sends what it has not sent yet."""
    service = start(otel_bsp_schedule_delay=60_000)
    with service.client() as client:
        for _ in range(5):
            client.get("/data").raise_for_status()
    assert collector.named("GET /data") == []
    service.stop()
    assert len(collector.named("GET /data")) == 5


def test_a_collector_that_is_away_costs_traces_alone(serve: Serve, postgres: Postgres) -> None:
    """Requests are answered, and the end is not held up for long."""
    name = asyncio.run(create_migrated(postgres))
    away = f"http://127.0.0.1:{free_port()}"
    traced = {"otel_exporter_otlp_endpoint": away, "otel_traces_sampler_arg": 1}
    service = serve(database_url=postgres.database(name), **traced)
    with service.client() as client:
        began = time.monotonic()
        for _ in range(50):
            client.get("/data").raise_for_status()
        assert time.monotonic() - began < 10
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 20
    lines = [json.loads(text) for text in service.log().splitlines()]
    assert "tracing failed" in {line["event"] for line in lines}


def test_a_collector_that_never_answers(serve: Serve, postgres: Postgres) -> None:
    """The end is not held up for longer than a fixed time, with a full queue of spans."""
    name = asyncio.run(create_migrated(postgres))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        traced = {"otel_exporter_otlp_endpoint": url, "otel_traces_sampler_arg": 1}
        service = serve(database_url=postgres.database(name), **traced)
        with service.client() as client:
            for _ in range(2500):
                client.get("/v1").raise_for_status()
        began = time.monotonic()
        assert service.stop() == 0
        assert FLUSH_SECONDS <= time.monotonic() - began < 2 * FLUSH_SECONDS


def test_who_does_not_trace_loads_nothing_for_it() -> None:
    """What makes and sends spans is imported only where they are sent somewhere.

    Not the whole of OpenTelemetry: FastAPI loads its interface, and redis-py the SDK's metrics.
    """
    program = """
import sys
from credenza.app import Service, create_app
from credenza.settings import Settings
create_app(Service(Settings(), url="postgresql://nobody@127.0.0.1/none"))
loaded = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "google", "requests")
print(sorted(name for name in sys.modules if name.startswith(loaded)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
