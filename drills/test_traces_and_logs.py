"""Traces and log lines in a cluster: from the pods to their stores, past what policies forbid."""

import json
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from cluster import ROOT, Cluster, run, wait
from reach import PROBE, answers
from test_observability import reached, targets

from conftest import API, Measured

BESIDE = ROOT / "k8s/node-logs/dev"
PARTS = ("collector", "jaeger", "loki")
STORES = ("collector:4318", "jaeger:16686", "jaeger:4318", "loki:3100")
OPEN: dict[str, set[str]] = {
    "credenza": {"collector:4318"},
    "collector": {"jaeger:4318"},
    "grafana": {"jaeger:16686", "loki:3100"},
    "stranger": set(),
}
"""What pods of the namespace reach of them, by the name that their labels say."""

KINDS = "statefulsets,services,serviceaccounts,persistentvolumeclaims"


@pytest.fixture(scope="module")
def watched(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The environment with collectors, Jaeger and Loki; without them afterwards."""
    before, folder = policies(cluster), tmp_path_factory.mktemp("watched")
    cluster.apply_with(folder, "tracing", "logs")
    run("kubectl", "apply", "--kustomize", BESIDE)
    yield cluster
    run("kubectl", "delete", "--kustomize", BESIDE)
    cluster.apply_with(folder)
    cluster.kubectl("delete", *(policies(cluster) - before))
    for part in PARTS:
        cluster.kubectl("delete", KINDS, f"--selector=app.kubernetes.io/name={part}")


def policies(cluster: Cluster) -> set[str]:
    """Return the names of the namespace's policies."""
    return set(cluster.kubectl("get", "networkpolicies", "--output=name").split())


def answer(url: str, **parameters: str) -> Any:
    """Return the JSON of an answer; None where there is nothing yet."""
    try:
        with urlopen(f"{url}?{urlencode(parameters)}", timeout=10) as found:
            return json.load(found)
    except OSError:
        return None


def lines(loki: str, query: str) -> list[dict[str, str]]:
    """Return the labels and structured metadata of log lines."""
    found = answer(f"{loki}/loki/api/v1/query_range", query=query, since="1h", limit="1000")
    return [each["stream"] for each in (found or {"data": {"result": []}})["data"]["result"]]


def send(request_id: str, trace: str) -> None:
    """Send a request whose trace is to be recorded."""
    parent = f"00-{trace}-{secrets.token_hex(8)}-01"
    fields = {"X-Request-Id": request_id, "traceparent": parent}
    urlopen(Request(f"{API}/v1/data/watched", headers=fields), timeout=30).close()


def test_a_request_is_found(watched: Cluster, measured: Measured) -> None:
    """A request's id finds its line in Loki and its trace in Jaeger; each replica's lines come."""
    replicas = set(watched.ready("credenza"))
    sent = {f"drill-{secrets.token_hex(8)}": secrets.token_hex(16) for _ in range(40)}
    with watched.forwarded("service/loki", 3100) as loki:
        wait("Loki answers", lambda: answer(f"{loki}/loki/api/v1/labels"))
        for request_id, trace in sent.items():
            send(request_id, trace)
        ours = '{service_name="credenza"} | request_id=~"drill-.+"'

        def found() -> bool:
            return {each["request_id"] for each in lines(loki, ours)} == set(sent)

        wait("each line in Loki", found)
        said = lines(loki, ours)
        labels = set(answer(f"{loki}/loki/api/v1/labels", since="1h")["data"])
    assert {each["request_id"]: each["trace_id"] for each in said} == sent
    assert {each["k8s_pod_name"] for each in said} == replicas
    assert {each["k8s_namespace_name"] for each in said} == {watched.namespace}
    # Loki's own, of lines that were there long before it.
    assert labels - {"__time_shard__"} == {"service_name", "k8s_namespace_name"}
    with watched.forwarded("service/jaeger", 16686) as jaeger:
        for trace in sent.values():
            wait("a trace in Jaeger", lambda: answer(f"{jaeger}/api/traces/{trace}"))  # noqa: B023
    measured(f"{len(sent)} requests to {len(replicas)} replicas: each line and each trace is there")


def test_they_are_watched(watched: Cluster, measured: Measured) -> None:
    """Prometheus has each of them as a target, those of the nodes too, as well as its pod is.

    Nodes that are one machine have one folder for what waits, so that one collector waits for it.
    """
    beside = Cluster(f"{watched.namespace}-logs")
    homes = {"collector": watched, "jaeger": watched, "loki": watched, "node-logs": beside}
    numbers = dict.fromkeys(homes, 1) | {"node-logs": len(watched.nodes())}

    def is_seen(job: str) -> bool:
        found = list(targets(job).values())
        ready = len(homes[job].ready(job))
        return len(found) == numbers[job] and found.count("up") == ready > 0

    for job in homes:
        wait(f"{job} is seen", partial(is_seen, job), seconds=180)
    measured(f"{sum(numbers.values())} targets, up where their pods are ready")


def test_nobody_else_reaches_the_stores(watched: Cluster, measured: Measured) -> None:
    """Each reaches what it needs; a stranger nothing, nor one whom no policy keeps from going out.

    The namespace refuses node-logs.
    """
    pod = watched.ready("credenza")[0]
    command = ("python", "-c", PROBE, "collector", *STORES)
    said = answers(watched.kubectl("exec", pod, "--container=credenza", "--", *command))
    found = {"credenza": {place for place, is_open in said.items() if is_open}}
    found |= {name: reached(watched, name, STORES) for name in OPEN.keys() - {"credenza"}}
    assert found == OPEN
    outside = [place.replace(":", f".{watched.namespace}.svc:") for place in STORES]
    assert reached(Cluster(f"{watched.namespace}-logs"), "stranger", outside) == set()
    made = run("kubectl", "kustomize", BESIDE).replace(f"{watched.namespace}-logs", "credenza-dev")
    refused = watched.kubectl("apply", "--dry-run=server", "--filename=-", input_=made)
    assert 'would violate PodSecurity "restricted:latest"' in refused
    ways = sum(map(len, OPEN.values()))
    closed = len(STORES) * (len(OPEN) + 1) - ways
    measured(f"{ways} ways open, {closed} closed; `restricted` refuses what sees a node")
