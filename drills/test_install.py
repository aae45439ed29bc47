"""From nothing to a running system, by each of the ways that the documentation offers."""

import time
from typing import Any

import pytest
from cluster import Cluster, deploy, run

from conftest import Measured

WAYS = {"kustomize": (), "helm": ("--helm",)}


@pytest.mark.parametrize("way", WAYS)
def test_install(cluster: Cluster, way: str, measured: Measured) -> None:
    """From an empty cluster to a passed smoke test by one command; again, nothing changes."""
    run("scripts/deploy.sh", "--kubeconfig", "--down")
    begun = time.monotonic()
    assert "works" in deploy(*WAYS[way])
    took = time.monotonic() - begun
    before = _generations(cluster)
    assert "works" in deploy(*WAYS[way])
    assert _generations(cluster) == before
    measured(f"{took:.0f} s from nothing, on a built image; the second run changed nothing")


def _generations(cluster: Cluster) -> dict[str, str]:
    """Return what of each object changes when it is changed; and which pods there are."""
    found = {}
    for kind in ("deployments", "statefulsets", "networkpolicies", "poddisruptionbudgets"):
        for item in _items(cluster, kind):
            found[f"{kind}/{item['name']}"] = str(item.get("generation"))
    for kind in ("services", "configmaps", "secrets", "serviceaccounts", "roles"):
        for item in _items(cluster, kind):
            found[f"{kind}/{item['name']}"] = item["resourceVersion"]
    return found | {f"pods/{item['name']}": item["uid"] for item in _items(cluster, "pods")}


def _items(cluster: Cluster, kind: str) -> list[dict[str, Any]]:
    """Return the metadata of objects, without the Secrets in which Helm notes its runs."""
    items = cluster.get(kind)["items"]
    return [item["metadata"] for item in items if item.get("type") != "helm.sh/release.v1"]
