"""From nothing to a running system, by each of the ways that the documentation offers."""

import time

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
    measured(f"{took:.0f} s from nothing, image included; the second run changed nothing")


def _generations(cluster: Cluster) -> dict[str, int]:
    """Return what of each object changes when what is asked for changes; and the pods."""
    kinds = "deployments,statefulsets,services,configmaps,secrets,networkpolicies,pods"
    # Helm notes each run of its own in a Secret.
    items = [i for i in cluster.get(kinds)["items"] if i.get("type") != "helm.sh/release.v1"]
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["metadata"].get("generation", 0)
        for item in items
    }
