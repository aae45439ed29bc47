"""Compose with docker-compose.observe.yml: where a request is found, and who reaches what."""

import json
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from cluster import wait
from compose import PATIENCE, ROOT, Stack, composed
from reach import PROBE, answers

from conftest import Measured
from examples import blocks

PAGE = ROOT / "docs/how-to/observe.md"

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The system with its stores of traces and lines, up by the page's command."""
    with composed(tmp_path_factory.mktemp("compose"), "JAEGER") as stack:
        stack.run("make .env")
        both = "COMPOSE_FILE=docker-compose.yml:docker-compose.observe.yml"
        with (stack.folder / ".env").open("a") as file:
            file.write(f"{both}\n")
        (command,) = [b.text for b in blocks(PAGE.read_text()) if "needs Docker" in b.reason]
        assert both in PAGE.read_text()
        stack.run(command)
        yield stack


def loki(stack: Stack, path: str, **parameters: str) -> Any:
    """Return the data of an answer of Loki, which is asked from where Grafana asks."""
    address = f"http://loki:3100/loki/api/v1/{path}?{urlencode(parameters)}"
    said = stack.run(f"docker compose exec -T grafana wget -q -O - '{address}'")
    return json.loads(said).get("data")


def ids(stack: Stack) -> dict[str, str]:
    """Return the trace of each request of the drill that Loki has a line of."""
    query = '{service_name="credenza"} | request_id=~"drill-.+"'
    found = [each["stream"] for each in loki(stack, "query_range", query=query)["result"]]
    return {labels["request_id"]: labels["trace_id"] for labels in found}


def trace(stack: Stack, identity: str) -> list[dict[str, Any]]:
    """Return the spans of a trace; empty where there are none yet."""
    answer = httpx2.get(f"{stack.url('JAEGER')}/api/traces/{identity}")
    return answer.json()["data"][0]["spans"] if answer.is_success else []


def test_a_request_is_found(stack: Stack, measured: Measured) -> None:
    """A request's id finds its line in Loki and its trace in Jaeger, from HTTP to SQL and Redis."""
    sent = {f"drill-{secrets.token_hex(8)}": secrets.token_hex(16) for _ in range(20)}
    with stack.client() as client:
        for request_id, identity in sent.items():
            parent = f"00-{identity}-{secrets.token_hex(8)}-01"
            fields = {"X-Request-Id": request_id, "traceparent": parent}
            path = f"/v1/data/watched/{request_id}"
            client.put(path, json={"n": 1}, headers=fields).raise_for_status()
    wait("each line in Loki", lambda: ids(stack) == sent, seconds=PATIENCE)
    services = set(loki(stack, "label/service_name/values"))
    assert "credenza" in services <= {*stack.started(), "credenza"}
    for identity in sent.values():
        wait("a trace", lambda: trace(stack, identity), seconds=PATIENCE)  # noqa: B023
        names = {span["operationName"] for span in trace(stack, identity)}
        assert {"PUT /v1/data/{collection}/{id}", "redis wrote"} <= names, names
    measured(f"{len(sent)} requests: each line and each trace is there")


def test_they_are_watched(stack: Stack, measured: Measured) -> None:
    """Prometheus has each of them as a target, and each is up."""
    address = f"{stack.url('PROMETHEUS')}/api/v1/targets"
    expected = dict.fromkeys(("collector", "jaeger", "loki", "node-logs"), "up")

    def seen() -> dict[str, str]:
        found = httpx2.get(address, params={"state": "active"}).json()["data"]["activeTargets"]
        return {each["labels"]["job"]: each["health"] for each in found}

    wait("each of them is up", lambda: seen().items() >= expected.items(), seconds=PATIENCE)
    measured(f"{len(expected)} targets, each of them up")


def test_who_reaches_the_stores(stack: Stack, measured: Measured) -> None:
    """The service reaches the collector, and neither store."""
    stores = ("jaeger:16686", "jaeger:4318", "loki:3100")
    command = ("python", "-c", PROBE, "collector", "collector:4318", *stores)
    found = answers(stack.compose("exec", "-T", "app", *command))
    assert found == {"collector:4318": True} | dict.fromkeys(stores, False)
    measured("1 way open, 3 closed")
