"""Metrics: the names and labels that dashboards rely on, and what the series count."""

import asyncio
import itertools
import re
import string
import time
from collections.abc import Iterator
from random import Random

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_fastapi_instrumentator import Instrumentator

from conftest import Serve
from credenza import __version__, telemetry
from credenza.cgroups import memory_limit
from databases import create_database
from servers import PATIENCE, Postgres, Valkey, free_port, until

Families = dict[str, Metric]


def parsed(text: str) -> Families:
    """Return the metric families of an exposition by name."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def scraped(client: httpx2.Client) -> Families:
    """Return the metric families of a service."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return parsed(answer.text)


def value(families: Families, sample: str, **labels: str) -> float:
    """Return the sum of a sample's values with these labels; 0 where there is none."""
    return sum(
        found.value
        for family in families.values()
        for found in family.samples
        if found.name == sample and labels.items() <= found.labels.items()
    )


def shape(families: Families) -> dict[str, tuple[str, set[frozenset[str]]]]:
    """Return type and label names of each family."""
    return {
        name: (
            family.type,
            {
                frozenset(sample.labels)
                for sample in family.samples
                if not sample.name.endswith("_created")
            },
        )
        for name, family in families.items()
    }


@pytest.fixture
def cached(serve: Serve, postgres: Postgres, valkey: Valkey) -> Iterator[httpx2.Client]:
    """A service with Redis and a database of its own."""
    url = postgres.database(asyncio.run(create_database(postgres)))
    with serve(database_url=url, redis_url=valkey.url).client() as client:
        until(lambda: client.get("/health").json()["status"] == "ok", "the cache is not used")
        yield client


def instrumented() -> Families:
    """Return what the real instrumentator exposes of a small application."""
    app, registry = FastAPI(), CollectorRegistry()

    @app.get("/data/{id}")
    async def read(id: str) -> str:  # noqa: A002 - the name of the parameter in our route
        return id

    Instrumentator(registry=registry).instrument(app)
    with TestClient(app) as client:
        client.get("/data/a")
        client.get("/nowhere")
    return parsed(generate_latest(registry).decode())


def test_http_series_are_those_of_the_instrumentator(client: httpx2.Client) -> None:
    """Names, types and label names are the library's own, and so are the values of the labels."""
    client.put("/data/a", json=1)
    client.get("/data/a")
    client.get("/nowhere")
    expected, found = instrumented(), scraped(client)
    assert shape(expected)
    assert {name: shape(found).get(name) for name in shape(expected)} == shape(expected)
    for labels in (
        {"handler": "/data/{id}", "method": "GET", "status": "2xx"},
        {"handler": "none", "method": "GET", "status": "4xx"},
    ):
        assert value(expected, "http_requests_total", **labels) >= 1
        assert value(found, "http_requests_total", **labels) >= 1


def test_requests_are_counted_by_template(client: httpx2.Client) -> None:
    """Each request counts once, under its route, method and class of status."""
    labels = {"handler": "/v1/data/{collection}/{id}", "method": "GET"}
    before = scraped(client)
    for number in range(7):
        client.get(f"/v1/data/counted/{number}")
    after = scraped(client)
    for name in ("http_requests_total", "http_request_duration_seconds_count"):
        assert value(after, name, **labels) - value(before, name, **labels) == 7
    assert value(after, "http_requests_total", status="4xx", **labels) >= 7
    assert value(after, "http_response_size_bytes_sum", handler=labels["handler"]) > value(
        before, "http_response_size_bytes_sum", handler=labels["handler"]
    )


def test_a_token_and_a_port_for_metrics(serve: Serve) -> None:
    """/metrics asks for the token, METRICS_PORT does not; it has no documents and ends in time.

    What has no token is counted as 4xx and names no path.
    """
    metrics_port = free_port()
    running = serve(auth_token="t", metrics_port=metrics_port)
    address = f"http://127.0.0.1:{metrics_port}"
    bearer = {"Authorization": "Bearer t"}
    with running.client() as client:
        for number in range(3):
            assert client.get(f"/data/{number}").status_code == 401
        assert client.get("/metrics").status_code == 401
        client.put("/data/a", json="hidden", headers=bearer).raise_for_status()
        inside = parsed(client.get("/metrics", headers=bearer).text)
    outside = parsed(httpx2.get(f"{address}/metrics").text)
    assert set(outside) == set(inside)
    refused = {"handler": "none", "method": "GET", "status": "4xx"}
    assert value(outside, "http_requests_total", **refused) == 4
    for number in range(5, 9):
        httpx2.get(f"{running.url}/data/a")
        now = parsed(httpx2.get(f"{address}/metrics").text)
        assert value(now, "http_requests_total", **refused) == number
    assert "hidden" not in httpx2.get(f"{address}/data/a").text
    assert running.stop() == 0
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{address}/metrics")


def test_documents_written_by_verb(client: httpx2.Client, collection: str) -> None:
    """Each acknowledged write counts once under its verb; refused ones and reads do not."""
    name, path = "credenza_documents_written_total", f"/v1/data/{collection}"
    before = scraped(client)
    client.post(path, json=1)
    client.put(f"{path}/a", json={"n": 1})
    client.put(f"{path}/a", json={"n": 2})
    client.patch(f"{path}/a", json={"n": 3})
    client.post(
        f"{path}/_import", content=b"1\n2\n3\n", headers={"Content-Type": "application/x-ndjson"}
    )
    client.delete(f"{path}/a")
    client.delete(f"{path}/a")
    client.put(f"{path}/b", json=1, headers={"If-Match": "*"})
    client.post(path, content=b"{")
    client.get(path)
    after = scraped(client)
    counted = {
        verb: value(after, name, verb=verb) - value(before, name, verb=verb)
        for verb in ("create", "put", "patch", "delete", "import")
    }
    assert counted == {"create": 1, "put": 2, "patch": 1, "delete": 1, "import": 3}


def test_the_cache_is_counted_by_layer(cached: httpx2.Client) -> None:
    """A first read is a miss in both layers, the next a hit in the near one."""
    location = cached.post("/data", json=1).headers["location"]
    cached.get("/data/other-to-know-the-collection")
    before = scraped(cached)
    for _ in range(4):
        assert cached.get(location).status_code == 200
    after = scraped(cached)

    def counted(layer: str, outcome: str) -> float:
        labels = {"layer": layer, "outcome": outcome}
        return value(after, "credenza_cache_total", **labels) - value(
            before, "credenza_cache_total", **labels
        )

    assert counted("redis", "miss") == 1
    assert counted("near", "hit") >= 3
    assert counted("near", "miss") >= 1
    for operation in ("look", "fill"):
        labels = {"operation": operation}
        assert value(after, "credenza_redis_seconds_count", **labels) >= 1
        assert value(after, "credenza_redis_seconds_sum", **labels) > 0
    assert value(after, "credenza_cache_near_bytes") > 0


def test_the_breaker_shows(cached: httpx2.Client, valkey: Valkey) -> None:
    """While Redis hangs its errors count and the breaker is 1; when it is back, it is 0 again."""
    breaker = "credenza_cache_breaker_open"
    assert value(scraped(cached), breaker) == 0

    def read() -> Families:
        assert cached.get("/data/a").status_code == 404
        return scraped(cached)

    valkey.pause()
    try:
        until(lambda: value(read(), breaker) == 1, "the breaker does not open")
    finally:
        valkey.resume()
    until(lambda: value(read(), breaker) == 0, "the breaker does not close")


def test_the_pool_the_statements_and_the_build(client: httpx2.Client) -> None:
    """Connections by state, statements by name, and the version that runs."""
    client.post("/data", json=1).raise_for_status()
    name = "credenza_database_connections"
    until(lambda: value(scraped(client), name) >= 1, "no connection is shown")
    families = scraped(client)
    assert {sample.labels["state"] for sample in families[name].samples} == {"idle", "busy"}
    assert value(families, name) <= 10
    assert value(families, "credenza_database_connections_max") == 10
    assert value(families, "credenza_database_wait_seconds_count") >= 1
    seconds = "credenza_database_statement_seconds"
    assert value(families, f"{seconds}_count", statement="insert_documents") >= 1
    assert 0 < value(families, f"{seconds}_sum", statement="insert_documents") < PATIENCE
    assert value(families, "credenza_build_info", version=__version__) == 1


def test_groups_are_counted(cached: httpx2.Client) -> None:
    """Each kind has its series from the start, and its groups are counted with their members."""
    before = scraped(cached)
    name = "credenza_group_members"
    assert {sample.labels["kind"] for sample in before[name].samples} == set(telemetry.GROUPS)
    cached.post("/data", json=1).raise_for_status()
    for body in (1, 2):
        cached.put("/data/a", json=body).raise_for_status()
    cached.patch("/data/a", json={"a": 1}).raise_for_status()
    cached.get("/data", headers={"If-None-Match": 'W/"' + "-" * 22 + '"'}).raise_for_status()
    cached.delete("/data/a").raise_for_status()
    cached.get("/data/missing")
    after = scraped(cached)
    grown = {
        kind: value(after, f"{name}_count", kind=kind) - value(before, f"{name}_count", kind=kind)
        for kind in telemetry.GROUPS
    }
    assert grown.pop("settings") >= 0
    assert grown == {"create": 1, "put": 2, "patch": 1, "delete": 1, "read": 1, "state": 1}
    assert value(after, "credenza_groups_waiting") == 0


def test_the_process_is_measured(client: httpx2.Client) -> None:
    """CPU time, memory, open files and the start of the process, as prometheus-client has them."""
    families = scraped(client)
    assert value(families, "process_resident_memory_bytes") > 10_000_000
    assert value(families, "credenza_memory_limit_bytes") == memory_limit()
    assert value(families, "process_cpu_seconds_total") > 0
    assert value(families, "process_open_fds") > 3
    assert abs(time.time() - value(families, "process_start_time_seconds")) < 3600


def test_every_metric_that_is_declared_is_exposed(client: httpx2.Client) -> None:
    """Each name in the vocabulary is on the page, with a help text and the type declared."""
    declared = parsed(telemetry.Metrics().exposition()[0].decode())
    found = scraped(client)
    ours = {name for name in declared if name.startswith("credenza_")}
    assert len(ours) >= 10
    for name in declared:
        assert found[name].type == declared[name].type, name
        if name.startswith(("credenza_", "http_")):
            assert re.fullmatch(r"[A-Z1].{15,}\.", found[name].documentation), name


def test_clients_cannot_make_series(cached: httpx2.Client) -> None:
    """10,000 random paths, methods and bodies, ids, collections and queries add no series at all.

    What is asked before has each kind of path, method and body, once.
    """
    random = Random(4711)

    def word() -> str:
        return "".join(random.choices(string.ascii_lowercase, k=8))

    def kinds() -> tuple[tuple[str, ...], ...]:
        return (
            (
                f"/{word()}",
                f"/{word()}/{word()}",
                f"/data?{word()}={word()}",
                f"/data/{word()}",
                f"/v1/data/{word()}",
                f"/v1/data/{word()}/{word()}",
                f"/v1/data/{word()}/_import",
                f"/v1/collections/{word()}",
                f"/assets/{word()}",
            ),
            ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", word().upper()),
            ("application/json", "application/x-ndjson", f"text/{word()}"),
            ("", "{", "{}", f'{{"{word()}": "{word()}"}}'),
        )

    def send(path: str, method: str, kind: str, body: str) -> None:
        answer = cached.request(method, path, content=body, headers={"Content-Type": kind})
        assert answer.status_code < 500

    def is_shown() -> bool:
        """Return whether what a process does by itself is there, and the scrapes themselves."""
        found = scraped(cached)
        seconds = "credenza_database_statement_seconds_count"
        upkeep = [
            value(found, seconds, statement=f"list_{name}") for name in ("indexed", "indexes")
        ]
        return all(upkeep) and value(found, "http_requests_total", handler="/metrics") > 0

    cached.put("/data/a", json=1).raise_for_status()
    for which in itertools.product(*(range(len(options)) for options in kinds())):
        send(*(options[number] for options, number in zip(kinds(), which, strict=True)))
    until(is_shown, "indexes are not looked after")
    before = series(scraped(cached))
    for _ in range(9_100):
        send(*map(random.choice, kinds()))
    after = series(scraped(cached))
    assert after - before == set()
    assert not [text for text in after if re.search(r"[a-z]{8}/[a-z]{8}", text)]
    assert len(after) < 2000


def series(families: Families) -> set[str]:
    """Return every series as name and labels."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}"
        for family in families.values()
        for sample in family.samples
    }
