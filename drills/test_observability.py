"""What Prometheus finds, follows and may reach, and that nothing fires where all is well."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from cluster import ROOT, Cluster, load_image, wait, worker
from reach import PROBE, answers, probe_pod

from conftest import PROMETHEUS, Measured, Metrics

GRAFANA = "http://127.0.0.1:30030"
IMAGE = "registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.18.0"
RULES = ROOT / "monitoring/prometheus/rules"
SERIES = re.compile(r"^(\w+)\{(.*)\} \S+$", re.MULTILINE)
QUIET = 360.0
"""Seconds of a new Prometheus within which nothing fires; what would later is pending by then."""

FOLLOWED = 90.0
"""Seconds within which targets are those of a roll-out that has ended: a discovery and a scrape."""


def _get(path: str, **parameters: str) -> Any:
    """Return the data of an answer of Prometheus."""
    address = f"{PROMETHEUS}/api/v1/{path}?{urlencode(parameters)}"
    with urlopen(address, timeout=30) as answer:
        return json.load(answer)["data"]


def targets(job: str) -> dict[str, str]:
    """Return the health of each target of a job, by its address."""
    found = _get("targets", state="active")["activeTargets"]
    of_job = [each for each in found if each["labels"]["job"] == job]
    assert len({each["labels"]["instance"] for each in of_job}) == len(of_job), "one is there twice"
    return {each["labels"]["instance"]: each["health"] for each in of_job}


def _replicas(cluster: Cluster) -> dict[str, str]:
    """Return the targets that there should be: each replica, once, and well."""
    return {f"{pod['status']['podIP']}:8001": "up" for pod in cluster.pods("credenza")}


def _status(address: str) -> int:
    with urlopen(address, timeout=30) as answer:
        status: int = answer.status
        return status


def _is_up(job: str) -> bool:
    return set(targets(job).values()) == {"up"}


def _told(alerts: str) -> set[str]:
    """Return the names of alerts that an expression gives."""
    return {each["metric"]["alertname"] for each in _get("query", query=alerts)["result"]}


def _measured_claims(cluster: Cluster) -> set[str]:
    """Return the claims in use whose volumes kubelets measure: all but those of kind hostPath."""
    volumes = [pv["spec"] for pv in cluster.get("pv")["items"] if "hostPath" not in pv["spec"]]
    claims = [spec["claimRef"] for spec in volumes if "claimRef" in spec]
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in cluster.get("pods")["items"]
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    return used & {each["name"] for each in claims if each["namespace"] == cluster.namespace}


def test_ports_of_nodes(cluster: Cluster, measured: Measured) -> None:
    """Prometheus answers on 30090 of a node, and Grafana on 30030."""
    assert cluster.exists()
    addresses = (f"{PROMETHEUS}/-/ready", f"{GRAFANA}/api/health")
    assert [_status(address) for address in addresses] == [200, 200]
    measured("both answer 200")


def test_discovery(cluster: Cluster, measured: Measured) -> None:
    """Each replica is a target by itself, once; a third one and a roll-out are followed."""
    wait("each replica is a target", lambda: targets("credenza") == _replicas(cluster))
    old = set(targets("credenza"))
    try:
        cluster.kubectl("scale", "deployment/credenza", "--replicas=3")
        cluster.rolled_out()
        wait(
            "the third one too",
            lambda: len(targets("credenza")) == 3 and targets("credenza") == _replicas(cluster),
            seconds=FOLLOWED,
        )
    finally:
        cluster.kubectl("scale", "deployment/credenza", "--replicas=2")
    cluster.kubectl("rollout", "restart", "deployment/credenza")
    cluster.rolled_out()
    wait(
        "old ones have gone, new ones have come",
        lambda: len(targets("credenza")) == 2 and targets("credenza") == _replicas(cluster),
        seconds=FOLLOWED,
    )
    new = set(targets("credenza"))
    assert not old & new
    measured(f"{len(old)} targets, then 3, then {len(new)} others, each replica once")


@pytest.fixture
def measured_claim(cluster: Cluster) -> Iterator[str]:
    """A claim in use that kubelets measure: they pass over `hostPath`, which a cluster may have.

    Its volume is the memory that each node has at /dev/shm, mounted to be read.
    """
    name, access = "drill-measured", ["ReadWriteOnce"]
    hosts = {"key": "kubernetes.io/hostname", "operator": "In", "values": [worker()]}
    volume = {
        "capacity": {"storage": "16Mi"},
        "accessModes": access,
        "storageClassName": name,
        "claimRef": {"namespace": cluster.namespace, "name": name},
        "local": {"path": "/dev/shm"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [hosts]}]}},
    }
    claim = {
        "accessModes": access,
        "storageClassName": name,
        "resources": {"requests": {"storage": "16Mi"}},
    }
    pod = probe_pod("measured")
    pod["spec"]["volumes"] = [{"name": name, "persistentVolumeClaim": {"claimName": name}}]
    pod["spec"]["containers"][0]["volumeMounts"] = [
        {"name": name, "mountPath": "/measured", "readOnly": True}
    ]
    things = [
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, spec in (("PersistentVolume", volume), ("PersistentVolumeClaim", claim))
    ]
    try:
        everything = {"apiVersion": "v1", "kind": "List", "items": [*things, pod]}
        cluster.kubectl("apply", "--filename=-", input_=json.dumps(everything))
        cluster.kubectl("wait", "--for=condition=Ready", "pod/probe-measured", "--timeout=90s")
        yield name
    finally:
        cluster.kubectl("delete", "pod/probe-measured", f"pvc/{name}", f"pv/{name}", "--wait=false")


@pytest.fixture(scope="module")
def watched(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The environment with what alerts of the platform look at, and a Prometheus without a past."""
    load_image(IMAGE)
    folder = tmp_path_factory.mktemp("watched")
    own = f"namespace: {cluster.namespace}"
    cluster.kubectl("scale", "statefulset/prometheus", "--replicas=0")
    cluster.kubectl("delete", "pod/prometheus-0", "--ignore-not-found")
    cluster.kubectl("delete", "pvc/data-prometheus-0")
    components = ("cluster-metrics", "kubelet-metrics", "backup")
    cluster.apply_with(folder, *components, patches=own)
    yield cluster
    cluster.apply_with(folder)
    name = "kube-state-metrics"
    for kind in ("deployment", "networkpolicy", "rolebinding", "role", "serviceaccount"):
        cluster.kubectl("delete", f"{kind}/{name}")
    cluster.kubectl(
        *("delete", "networkpolicy/prometheus-to-cluster-metrics"),
        *("networkpolicy/prometheus-to-kubelet", "networkpolicy/backup-to-postgres"),
        *("networkpolicy/postgres-from-backup", "cronjob/backup", "cronjob/restore"),
        *("serviceaccount/backup", "pvc/backups"),
    )
    for kind in ("clusterrolebinding", "clusterrole"):
        cluster.kubectl("delete", f"{kind}/credenza-kubelet-metrics.{cluster.namespace}")


def test_alerts_of_the_platform(
    watched: Cluster, measured_claim: str, measured: Measured, metrics: Metrics
) -> None:
    """Their series are there, of this namespace alone; rules load; nothing but Watchdog fires."""
    for job in ("kube-state-metrics", "kubelet"):
        wait(f"{job} is scraped", partial(_is_up, job), seconds=180)
    nodes = {pod["status"]["hostIP"] for pod in watched.get("pods")["items"]}
    assert set(targets("kubelet")) == {f"{node}:10250" for node in nodes}
    claims = _measured_claims(watched)
    assert measured_claim in claims
    wait("volumes are known", lambda: metrics("count(credenza:volume_free:ratio)") == len(claims))
    shown = _labels((ROOT / "tests/exposed/kube-state-metrics.prom").read_text())
    seen = _seen("kube_pod_start_time") | _seen("kube_pod_init_container_status_ready")
    seen |= _seen("kube_pod_container_status_restarts_total") | _seen("kube_pod_status_phase")
    seen |= _seen("kube_deployment_spec_replicas") | _seen("kube_cronjob_created")
    seen |= _seen("kube_statefulset_replicas") | _seen("kube_statefulset_status_replicas_ready")
    assert len(seen) == 8
    assert all(seen[name] == shown[name] for name in seen)
    for name, labels in _labels((ROOT / "tests/exposed/kubelet.prom").read_text()).items():
        assert _seen(name) == {name: labels}
    expression = 'count by (namespace) ({__name__=~"kube_.+|kubelet_volume_.+"})'
    found = _get("query", query=expression)["result"]
    assert [each["metric"] for each in found] == [{"namespace": watched.namespace}]
    _assert_rules_are_well()
    begun = "time() - process_start_time_seconds{job='prometheus'}"
    wait("it has seen enough", lambda: metrics(begun) > QUIET, seconds=QUIET + 60)
    assert _told("max_over_time(ALERTS{alertstate='firing'}[1h])") == {"Watchdog"}
    assert _told("ALERTS{alertstate='pending'}") == set()
    measured(
        f"{len(nodes)} kubelets with {len(claims)} volumes and kube-state-metrics are scraped, "
        f"names and labels as in tests/exposed; rules are well"
    )


def _assert_rules_are_well() -> None:
    """Fail unless each rule of the files is loaded and evaluates."""
    files = [yaml.safe_load(path.read_text()) for path in RULES.glob("*.yml")]
    expected = sum(len(group["rules"]) for file in files for group in file["groups"])
    rules = [rule for group in _get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == expected
    wait("rules evaluate", lambda: {rule["health"] for rule in _rules()} == {"ok"})
    assert [rule for rule in _rules() if rule.get("lastError")] == []


def _rules() -> list[Any]:
    return [rule for group in _get("rules")["groups"] for rule in group["rules"]]


def _labels(text: str) -> dict[str, set[str]]:
    """Return the labels of each series of a text, by its name."""
    return {
        name: set(re.findall(r'(\w+)="', inside)) - {"namespace"}
        for name, inside in SERIES.findall(text)
    }


def _seen(name: str) -> dict[str, set[str]]:
    """Return the labels of a metric's series, without those of a target."""
    found = _get("series", **{"match[]": name})
    of_target = {"__name__", "job", "instance", "namespace", "node"}
    kinds = {frozenset(set(each) - of_target) for each in found}
    assert len(kinds) == 1, f"{name}: {kinds}"
    return {name: set(*kinds)}


def test_what_may_be_reached(watched: Cluster, measured: Measured) -> None:
    """Another pod of the namespace reaches neither the metrics port nor kube-state-metrics."""
    pods = [*watched.pods("credenza"), *watched.pods("kube-state-metrics")]
    ports = {"credenza": 8001, "kube-state-metrics": 8080}
    label = "app.kubernetes.io/name"
    places = [f"{pod['status']['podIP']}:{ports[pod['metadata']['labels'][label]]}" for pod in pods]
    found = {name: reached(watched, name, places) for name in ("prometheus", "stranger")}
    assert found == {"prometheus": set(places), "stranger": set()}
    measured(f"{len(places)} ports: Prometheus reaches each, another pod none")


def reached(cluster: Cluster, name: str, places: Sequence[str]) -> set[str]:
    """Return which places a pod with this name's label reaches."""
    pod = f"probe-{name}"
    cluster.kubectl("apply", "--filename=-", input_=json.dumps(probe_pod(name)))
    try:
        cluster.kubectl("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=90s")
        service = "kubernetes.default.svc"  # in whichever namespace the pod is
        said = cluster.kubectl("exec", pod, "--", "python3", "-c", PROBE, service, *places)
    finally:
        cluster.kubectl("delete", f"pod/{pod}", "--now")
    return {place for place, is_open in answers(said).items() if is_open}
