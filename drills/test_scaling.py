"""What the service takes under load, how fast it starts, and that replicas follow the load."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait
from load import Load

from conftest import API, Measured

SOON = """
patches:
  - target: {kind: HorizontalPodAutoscaler, name: credenza}
    patch: |
      - {op: replace, path: /spec/behavior/scaleDown/stabilizationWindowSeconds, value: 30}
      - {op: replace, path: /spec/maxReplicas, value: 4}
"""
"""The shipped autoscaler, which waits 300 s before it scales down, made quicker for the drill."""

STARTED = 60.0
"""Seconds within which a replica is ready at its limit of 200 millicores."""


@pytest.fixture
def autoscaled(cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """The environment with an autoscaler; without it and with two replicas afterwards."""
    cluster.apply_with(tmp_path, "hpa", patches=SOON)
    yield cluster
    cluster.kubectl("delete", "horizontalpodautoscaler/credenza")
    cluster.apply_with(tmp_path)


def test_autoscaling(autoscaled: Cluster, measured: Measured) -> None:
    """CPU load brings replicas, its end takes them away again, and no request is lost."""
    wait("the autoscaler has figures", lambda: _can_scale(autoscaled), seconds=180)
    with Load(API, clients=24) as load:
        begun = time.monotonic()
        wait("a third replica is ready", lambda: _replicas(autoscaled) > 2, seconds=300)
        up = time.monotonic() - begun
        load.until(len(load.requests) + 2000)
        most = _replicas(autoscaled)
    begun = time.monotonic()
    wait("two replicas are left", lambda: _replicas(autoscaled) == 2, seconds=400)
    down = time.monotonic() - begun
    measured(
        f"2 to {most} replicas, the third ready after {up:.0f} s; back after {down:.0f} s; "
        f"{load.told()}"
    )
    assert load.lost == [], load.outcomes()


def _can_scale(cluster: Cluster) -> bool:
    conditions = cluster.get("horizontalpodautoscaler/credenza")["status"].get("conditions", [])
    return any(c["type"] == "ScalingActive" and c["status"] == "True" for c in conditions)


def _replicas(cluster: Cluster) -> int:
    return len(cluster.ready("credenza"))


def test_resources(cluster: Cluster, measured: Measured) -> None:
    """Under load the service stays within its limits, and starts within a minute at 200m CPU."""
    cluster.kubectl("rollout", "restart", "deployment/credenza")
    cluster.rolled_out()
    starts = [_start_of(pod) for pod in cluster.pods("credenza")]
    with Load(API) as load:
        load.until(6_000)
        used = wait("metrics of both", lambda: _used(cluster), seconds=60)
    cpu, memory = max(cpu for cpu, _ in used), max(memory for _, memory in used)
    measured(
        f"{cpu} of 200m CPU (request 100m), {memory} of 256 MiB (request 128 MiB) at "
        f"{_rate(load):.0f} requests/s, p99 {load.percentile(99):.2f} s; ready {max(starts):.0f} s "
        "after its container began, with the migration before that"
    )
    assert memory < 0.9 * 256
    assert max(starts) < STARTED
    assert load.lost == [], load.outcomes()


def _start_of(pod: dict[str, Any]) -> float:
    """Return the seconds from the start of the service's container to its readiness."""
    begun = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    ready = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")
    times = (datetime.fromisoformat(text) for text in (ready["lastTransitionTime"], begun))
    return (next(times) - next(times)).total_seconds()


def _used(cluster: Cluster) -> list[tuple[int, int]]:
    """Return CPU in millicores and memory in MiB of each replica, where both are measured."""
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{cluster.namespace}/pods"
    selector = "?labelSelector=app.kubernetes.io/name%3Dcredenza"
    found = json.loads(cluster.kubectl("get", "--raw", path + selector))["items"]
    pods = set(cluster.ready("credenza"))
    usages = [c["usage"] for p in found if p["metadata"]["name"] in pods for c in p["containers"]]
    figures = [(_millicores(usage["cpu"]), int(usage["memory"][:-2]) // 1024) for usage in usages]
    return figures if len(figures) == 2 and min(cpu for cpu, _ in figures) > 20 else []


def _millicores(text: str) -> int:
    return int(text[:-1]) // 1_000_000 if text.endswith("n") else int(text[:-1])


def _rate(load: Load) -> float:
    ends = [request.at for request in load.requests]
    return len(ends) / (max(ends) - min(ends))
