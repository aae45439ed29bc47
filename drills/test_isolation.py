"""What each pod may reach, what it may do, and that a restricted namespace admits it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster, run
from reach import PROBE, answers, probe_pod

from conftest import Measured

Edge = tuple[str, str]
"""From a part of the system to a target: a part and its port, or `api`, the Kubernetes API."""

PORTS = {
    "credenza": 8000,
    "postgres": 5432,
    "redis": 6379,
    "prometheus": 9090,
    "alertmanager": 9093,
    "grafana": 3000,
}
METRICS = "credenza:8001"
EXPOSED = {"credenza:8000", "prometheus:9090", "grafana:3000"}
OUTSIDE = "outside"
"""A pod of another namespace, where no policy holds it back: it shows what comes in."""

ALLOWED: set[Edge] = {
    ("credenza", "postgres:5432"),
    ("credenza", "redis:6379"),
    ("prometheus", METRICS),
    ("prometheus", "api"),
    ("prometheus", "alertmanager:9093"),
    ("grafana", "prometheus:9090"),
    *((OUTSIDE, exposed) for exposed in EXPOSED),
    (OUTSIDE, "api"),
}
RIGHTS = {"prometheus": {"pods [] [] [get list watch]"}}
"""What a service account may do beyond what Kubernetes lets everyone ask."""


@pytest.fixture(scope="module")
def outside(cluster: Cluster) -> Iterator[Cluster]:
    """A namespace beside the one of the system."""
    other = Cluster("credenza-drill-outside")
    other.kubectl("create", "namespace", other.namespace)
    yield other
    other.kubectl("delete", "namespace", other.namespace)


@pytest.fixture(scope="module")
def probes(cluster: Cluster, outside: Cluster) -> Iterator[dict[str, Cluster]]:
    """A pod that looks like each part to the policies, a stranger, and one from outside."""
    homes = dict.fromkeys((*PORTS, "stranger"), cluster) | {OUTSIDE: outside}
    for name, home in homes.items():
        home.kubectl("apply", "--filename=-", input_=json.dumps(probe_pod(name)))
    try:
        for name, home in homes.items():
            home.kubectl("wait", "--for=condition=Ready", f"pod/probe-{name}", "--timeout=90s")
        yield homes
    finally:
        for name, home in homes.items():
            home.kubectl("delete", f"pod/probe-{name}", "--now", "--ignore-not-found")


def test_network_policies(cluster: Cluster, probes: dict[str, Cluster], measured: Measured) -> None:
    """Every pair of parts is as declared, allowed and denied, inwards and outwards."""
    places = _places(cluster)
    names = {place: target for target, place in places.items()}
    seen: dict[Edge, bool] = {}
    for source, home in probes.items():
        name = f"redis.{cluster.namespace}.svc"
        command = ("exec", f"probe-{source}", "--", "python3", "-c", PROBE, name, *places.values())
        found = answers(home.kubectl(*command))
        seen |= {(source, names[place]): is_open for place, is_open in found.items()}
    assert len(seen) == len(probes) * len(places)
    assert {edge for edge, is_open in seen.items() if is_open} == ALLOWED
    measured(f"{len(seen)} edges tried: {len(ALLOWED)} open as declared, the others closed")


def _places(cluster: Cluster) -> dict[str, str]:
    """Return the address of each target; a pod's own, so that no Service stands between."""
    found = {"api": Cluster("default").get("service/kubernetes")["spec"]["clusterIP"] + ":443"}
    for target in (*(f"{name}:{port}" for name, port in PORTS.items()), METRICS):
        name, _, port = target.partition(":")
        real = [pod for pod in cluster.pods(name) if "ownerReferences" in pod["metadata"]]
        found[target] = f"{real[0]['status']['podIP']}:{port}"
    return found


def test_pod_security(cluster: Cluster, measured: Measured) -> None:
    """The namespace enforces Pod Security `restricted`, and its real admission took every pod."""
    labels = cluster.get("namespace", cluster.namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    bad = probe_pod("privileged")
    bad["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(AssertionError, match=r'violates PodSecurity "restricted'):
        cluster.kubectl("create", "--filename=-", input_=json.dumps(bad))
    pods = cluster.get("pods")["items"]
    assert {_name(pod) for pod in pods} >= set(PORTS)
    warned = run("kubectl", "apply", "--dry-run=server", "--kustomize", "k8s/overlays/dev")
    assert "would violate PodSecurity" not in warned
    measured(f"{len(pods)} pods of {len(PORTS)} parts run; a privileged one was refused")


def _name(pod: dict[str, Any]) -> str:
    name: str = pod["metadata"]["labels"].get("app.kubernetes.io/name", "")
    return name


WRITES = """
import os, sys
for path in sys.argv[1:]:
    try:
        open(os.path.join(path, "probe"), "w").close()
        os.remove(os.path.join(path, "probe"))
        print(path, "written")
    except OSError as error:
        print(path, error.strerror)
"""
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


def test_read_only_and_without_token(cluster: Cluster, measured: Measured) -> None:
    """The service can write nowhere but in /tmp, is not root, and has no token of the cluster."""
    command = ("exec", "deployment/credenza", "--container=credenza", "--")
    paths = ("/", "/opt/service", "/opt/credenza", "/etc", "/home", "/var/lib", "/tmp")
    said = cluster.kubectl(*command, "python3", "-c", WRITES, *paths)
    written = [line.split()[0] for line in said.splitlines() if line.endswith("written")]
    assert written == ["/tmp"]
    assert cluster.kubectl(*command, "id", "-u").strip() == "10001"
    for pod in cluster.get("pods")["items"]:
        containers = pod["spec"]["containers"]
        mounts = [
            mount["mountPath"] for part in containers for mount in part.get("volumeMounts", [])
        ]
        is_probe = "ownerReferences" not in pod["metadata"]
        assert (TOKEN in mounts) == (_name(pod) in RIGHTS and not is_probe), _name(pod)
    measured("only /tmp can be written; Prometheus alone has a token")


def test_rights(cluster: Cluster, measured: Measured) -> None:
    """No service account may do more than its list, as the cluster itself tells."""
    everyone = _may(cluster, "nobody-of-this-name")
    accounts = [item["metadata"]["name"] for item in cluster.get("serviceaccounts")["items"]]
    assert set(accounts) >= {*PORTS, "default"}
    for account in accounts:
        assert _may(cluster, account) - everyone == RIGHTS.get(account, set()), account
    measured(f"{len(accounts)} service accounts: Prometheus reads pods, the others have no right")


def _may(cluster: Cluster, account: str) -> set[str]:
    who = f"--as=system:serviceaccount:{cluster.namespace}:{account}"
    said = cluster.kubectl("auth", "can-i", "--list", "--no-headers", who)
    return {" ".join(line.split()) for line in said.splitlines()}
