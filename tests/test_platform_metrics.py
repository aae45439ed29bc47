"""What alerts of the platform ask for: where it comes from, who may ask, and that it is there.

tests/exposed has what kube-state-metrics, the kubelet and cert-manager show. A real Prometheus
scrapes it with the shipped configuration; a static target with a pod's labels stands for the
discovery, which drills/test_observability.py shows on a cluster.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import manifests
from manifests import OVERLAYS, ROOT, Object, admitted, one, render_with
from platform_cases import PLATFORM
from promtool import RULE_FILES
from scraping import Prometheus
from servers import until
from shown import EXPOSED, MATCHER, OF_TARGETS, exposed, unknown

COMPONENTS = ROOT / "k8s/components"
SCRAPED = {
    "kube-state-metrics": COMPONENTS / "cluster-metrics/scrape-cluster.yml",
    "cert-manager": COMPONENTS / "cluster-metrics/scrape-cluster.yml",
    "kubelet": COMPONENTS / "kubelet-metrics/scrape-kubelet.yml",
}
NAME = re.compile(r"\b(?:kube|kubelet|certmanager)_\w+")
PLATFORM_RULES = RULE_FILES["platform.yml"]["groups"][0]["rules"]
PAGES = [ROOT / f"docs/runbooks/{rule['alert']}.md" for rule in PLATFORM_RULES if "alert" in rule]
NAMESPACE = "credenza-staging"


@pytest.mark.parametrize("rule", PLATFORM_RULES, ids=lambda rule: rule.get("alert", "recorded"))
def test_rules_ask_for_what_is_shown(rule: Object) -> None:
    """Each name and value is one that is shown, and each label that it joins by is one of it."""
    assert unknown(rule["expr"], NAME) == set()
    shown = {name: labels[0].keys() for name, labels in exposed().items()}
    labels = set().union(*(shown[name] for name in NAME.findall(rule["expr"])), {"namespace"})
    for inside in re.findall(r"\b(?:by|on) \(([\w, ]*)\)", rule["expr"]):
        allowed = labels | (
            {"persistentvolumeclaim"} if "credenza:volume" in rule["expr"] else set()
        )
        assert set(inside.split(", ")) <= allowed


def test_pages_ask_for_what_is_shown() -> None:
    """So do the runbooks; a name or a value of another version is seen."""
    for page in PAGES:
        assert unknown(page.read_text(), NAME) == set(), page
    assert unknown("kube_job_status_broken", NAME) == {"kube_job_status_broken"}
    assert unknown('kube_job_failed{condition="yes"}', NAME) == {"kube_job_failed: condition=yes"}


def test_cases_have_the_labels_that_are_shown() -> None:
    """Series of the cases for promtool are those that are shown, label by label."""
    shown = {name: set(labels[0]) for name, labels in exposed().items()}
    used = {each["series"] for case in PLATFORM for each in case.test()["input_series"]}
    checked = set()
    for series in used:
        name, _, inside = series.partition("{")
        if NAME.fullmatch(name):
            own = {label for label, _, _ in MATCHER.findall(inside)} - {"exported_namespace"}
            assert own - OF_TARGETS == shown[name] - OF_TARGETS, series
            checked.add(name)
    assert checked == set().union(*(NAME.findall(rule["expr"]) for rule in PLATFORM_RULES))


class Shown(BaseHTTPRequestHandler):
    """Shows tests/exposed, a job at a path."""

    def text(self, job: str) -> bytes:
        """Return what a job shows."""
        return (EXPOSED / f"{job}.prom").read_bytes()

    def do_GET(self) -> None:
        """Show it."""
        text = self.text(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@contextmanager
def showing(handler: type[Shown]) -> Iterator[int]:
    """Have a port on which all of it is shown."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def stub() -> Iterator[int]:
    """Show tests/exposed on a port, a file at a path."""
    with showing(Shown) as port:
        yield port


def pod_target(port: int, **meta: str) -> Object:
    """Return a static target with the labels that the discovery of a pod would give it."""
    own = {f"__meta_kubernetes_{name}": value for name, value in meta.items()}
    labels = {"__meta_kubernetes_namespace": NAMESPACE, **own}
    return {"targets": [f"127.0.0.1:{port}"], "labels": labels}


def jobs(port: int) -> list[Object]:
    """Return the shipped jobs, with targets of this machine in place of the discovery."""
    running = {"pod_phase": "Running", "pod_host_ip": "127.0.0.1", "pod_node_name": "a"}
    targets = {
        "kube-state-metrics": [
            pod_target(at, pod_container_port_name=name, pod_name="kube-state-metrics-1")
            for at, name in ((port, "http-metrics"), (1, "telemetry"))
        ],
        "cert-manager": [{"targets": [f"127.0.0.1:{port}"]}],
        "kubelet": [
            *(pod_target(1, **running, pod_name=name) for name in ("postgres-0", "credenza-1")),
            pod_target(1, **running | {"pod_phase": "Pending", "pod_host_ip": "127.0.0.2"}),
        ],
    }
    found = []
    for path in dict.fromkeys(SCRAPED.values()):
        for job in yaml.safe_load(path.read_text().replace(":10250", f":{port}"))["scrape_configs"]:
            for key in ("kubernetes_sd_configs", "dns_sd_configs", "authorization", "tls_config"):
                job.pop(key, None)
            name = job["job_name"]
            plain = {"scheme": "http", "metrics_path": f"/{name}", "scrape_interval": "500ms"}
            found.append(job | plain | {"static_configs": targets.pop(name)})
    assert not targets
    return found


@pytest.fixture
def prometheus(folder: Path, stub: int) -> Iterator[Prometheus]:
    """Prometheus with the shipped jobs and rules, and one target of the service, which is down."""
    service = {"127.0.0.1:1": {"namespace": NAMESPACE}}
    server = Prometheus(folder, service)
    path = folder / "prometheus.yml"
    config = yaml.safe_load(path.read_text())
    config["scrape_configs"] += jobs(stub)
    path.write_text(yaml.safe_dump(config))
    yield server.start()
    server.stop()


EXPECTED = {"CredenzaMigrationStuck", "CredenzaBackupFailed", "CredenzaBackupOld"}
"""What fires at once of what tests/exposed shows; the others wait first."""

WAITING = {
    *("CredenzaVolumeFull", "CredenzaVolumeFills"),
    *("CredenzaReplicasMissing", "CredenzaStatefulSetReplicasMissing"),
    "CredenzaCertificateExpires",
}


@pytest.mark.timeout(180)
def test_what_is_scraped_and_what_fires(prometheus: Prometheus) -> None:
    """One target of each, the labels of objects, nothing of other namespaces; and alerts fire."""

    def states() -> dict[str, str]:
        found = prometheus.get("alerts")["alerts"]
        return {each["labels"]["alertname"]: each["state"] for each in found}

    wanted = dict.fromkeys(EXPECTED, "firing") | dict.fromkeys(WAITING, "pending")
    until(lambda: wanted.items() <= states().items(), f"alerts: {prometheus.log()[-500:]}")
    names = {rule["alert"] for rule in PLATFORM_RULES if "alert" in rule}
    assert names & states().keys() == EXPECTED | WAITING
    targets = prometheus.get("targets", state="active")["activeTargets"]
    of_platform = [each["labels"]["job"] for each in targets if each["labels"]["job"] in SCRAPED]
    assert sorted(of_platform) == sorted(SCRAPED)
    seen = prometheus.seen()
    assert "kubelet_running_pods" not in seen
    assert "certmanager_controller_sync_call_count" not in seen
    for name, series in exposed().items():
        for labels in seen.get(name, []):
            own = {key: value for key, value in labels.items() if key not in {"job", "instance"}}
            assert {**own, "node": ""} in [{**each, "node": ""} for each in series], name
            assert labels["namespace"] == NAMESPACE


def test_no_pod_is_scraped_twice() -> None:
    """What the components scrape has not the annotation of the pods that prometheus.yml finds."""
    objects = render_with("cluster-metrics", "staging")
    template = one(objects, "Deployment", "kube-state-metrics")["spec"]["template"]
    assert not template["metadata"].get("annotations", {}).get("prometheus.io/scrape")
    main = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    names = [job["job_name"] for job in main["scrape_configs"]]
    assert not set(names) & set(SCRAPED)
    (pattern,) = main["scrape_config_files"]
    folder, _, name = pattern.rpartition("/")
    assert folder == "/etc/prometheus"
    for path in SCRAPED.values():
        assert path.match(name)
        merged = one(render_with(path.parent.name, "dev"), "ConfigMap", "prometheus-config")
        assert merged["data"].keys() == {"prometheus.yml", path.name}
        assert merged["data"][path.name] == path.read_text()


def test_rights_are_what_is_asked() -> None:
    """kube-state-metrics may look at the kinds that it counts, in its own namespace alone."""
    objects = render_with("cluster-metrics", "staging")
    assert manifests.kind(objects, "ClusterRole", "ClusterRoleBinding") == []
    rules = one(objects, "Role", "kube-state-metrics")["rules"]
    assert {tuple(rule["verbs"]) for rule in rules} == {("list", "watch")}
    args = manifests.container(objects, "kube-state-metrics")["args"]
    (asked,) = (arg.partition("=")[2] for arg in args if arg.startswith("--resources="))
    assert sorted(name for rule in rules for name in rule["resources"]) == asked.split(",")
    assert "--namespaces=$(NAMESPACE)" in args
    kinds = {"pod", "deployment", "statefulset", "horizontalpodautoscaler", "cronjob", "job"}
    used = {name.split("_")[1] for name in exposed() if name.startswith("kube_")}
    assert used == kinds == {name.removesuffix("s") for name in asked.split(",")}
    source = {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/part-of": "credenza"}
    assert admitted(objects, "kube-state-metrics") == [{"podSelector": {"matchLabels": source}}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_rights_of_the_cluster_are_few(overlay: str) -> None:
    """kubelet-metrics allows the metrics of kubelets, to one account, by a name of its own."""
    objects = render_with("kubelet-metrics", overlay)
    name = f"credenza-kubelet-metrics.credenza-{overlay}"
    role = one(objects, "ClusterRole", name)
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]
    binding = one(objects, "ClusterRoleBinding", name)
    assert binding["roleRef"]["name"] == name
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "prometheus", "namespace": f"credenza-{overlay}"}
    ]
