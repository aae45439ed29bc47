"""Samples are kept as long as rules look back: in time, in bytes, and on the volume."""

import re
from collections.abc import Callable

import pytest
import yaml

from charts import template
from manifests import OVERLAYS, ROOT, Object, one, render
from promtool import EVERY

INTERVAL = 15
"""Seconds between two scrapes (monitoring/prometheus/prometheus.yml)."""

SERIES = 1700
"""Of a replica that has answered each kind of request, with success and failure;
test_rules_contract.py counts them."""

BESIDE = 1500
"""Series besides: Prometheus's own, recorded ones, Alertmanager, kube-state-metrics, observers."""

BYTES = 2.9
"""Of a sample in a block, with its index: docs/how-to/production.md says how it was measured."""

SHARE = 0.8
"""Of a volume that samples may take; the write-ahead log and compaction need the rest."""

UNITS = {"MB": 2**20, "GB": 2**30, "Gi": 2**30}
"""Prometheus counts by powers of two as well: its MB is a MiB."""


def size(text: str) -> int:
    """Return bytes."""
    number, unit = re.fullmatch(r"(\d+)(\w\w)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def kept(arguments: list[str]) -> tuple[int, int]:
    """Return for how many days samples are kept, and how many bytes at the most."""
    found = dict(re.findall(r"retention\.(\w+)=(\w+)", " ".join(arguments)))
    return int(found["time"].removesuffix("d")), size(found["size"])


def needed(replicas: int, days: int) -> float:
    """Return the bytes that so many replicas take in so many days."""
    return (replicas * SERIES + BESIDE) * days * 86400 / INTERVAL * BYTES


def replicas(objects: list[Object]) -> int:
    """Return how many there may be: those of the Deployment, or the most of its autoscaler."""
    scalers = [found for found in objects if found["kind"] == "HorizontalPodAutoscaler"]
    if scalers:
        return int(scalers[0]["spec"]["maxReplicas"])
    return int(one(objects, "Deployment")["spec"]["replicas"])


RENDER: dict[str, Callable[[str], list[Object]]] = {"kustomize": render, "chart": template}


@pytest.mark.parametrize("environment", OVERLAYS)
@pytest.mark.parametrize("by", RENDER)
def test_samples_fit(by: str, environment: str) -> None:
    """35 days of all replicas that there may be fit into the size, and that into the volume."""
    objects = RENDER[by](environment)
    spec = one(objects, "StatefulSet", "prometheus")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    days, most = kept(container["args"])
    assert needed(replicas(objects), days) <= most
    (claim,) = spec["volumeClaimTemplates"]
    assert most <= SHARE * size(claim["spec"]["resources"]["requests"]["storage"])
    assert days > longest()


def test_samples_fit_under_compose() -> None:
    """So do those of the one service there."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    days, most = kept(services["prometheus"]["command"])
    assert needed(1, days) <= most
    assert days > longest()


def longest() -> int:
    """Return for how many days a rule looks back at the most."""
    windows = [int(found) for rule in EVERY for found in re.findall(r"\[(\d+)d\]", rule["expr"])]
    assert max(windows) == 30
    return max(windows)


def test_the_interval_is_the_one_that_is_scraped_by() -> None:
    """What is computed with is what is configured."""
    for name in ("prometheus.yml", "compose.yml"):
        text = (ROOT / "monitoring/prometheus" / name).read_text()
        assert yaml.safe_load(text)["global"]["scrape_interval"] == f"{INTERVAL}s"
