"""What alerts of the platform ask for: where it comes from, who may ask, and that it is there.

tests/exposed has what kube-state-metrics, the kubelet and cert-manager show. A real Prometheus
scrapes it with the shipped configuration; a static target with a pod's labels (sources.py) stands
for the discovery, which drills/test_observability.py shows on a cluster.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import manifests
from expressions import unknown
from manifests import OVERLAYS, ROOT, Object, admitted, one, render_with
from platform_cases import PLATFORM
from promtool import RULE_FILES
from scraping import Prometheus
from servers import until
from shown import MATCHER, OF_TARGETS, exposed
from sources import NAMESPACE, SCRAPED, Shown, add_jobs, platform_jobs, showing

NAME = re.compile(r"\b(?:kube|kubelet|certmanager)_\w+")
PLATFORM_RULES = RULE_FILES["platform.yml"]["groups"][0]["rules"]
PAGES = [ROOT / f"docs/runbooks/{rule['alert']}.md" for rule in PLATFORM_RULES if "alert" in rule]


@pytest.mark.parametrize("rule", PLATFORM_RULES, ids=lambda rule: rule.get("alert", "recorded"))
def test_rules_ask_for_what_is_shown(rule: Object) -> None:
    """Each name and value is one that is shown, and each label that it joins by is one of it."""
    assert unknown([rule["expr"]], exposed(), NAME) == set()
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
        assert unknown([page.read_text()], exposed(), NAME) == set(), page
    for wrong in ("kube_job_status_broken", 'kube_job_failed{condition="yes"}'):
        assert unknown([wrong], exposed(), NAME), wrong


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


@pytest.fixture
def stub() -> Iterator[int]:
    """Show tests/exposed on a port, a file at a path."""
    with showing(Shown) as port:
        yield port


@pytest.fixture
def prometheus(folder: Path, stub: int) -> Iterator[Prometheus]:
    """Prometheus with the shipped jobs and rules, and one target of the service, which is down."""
    service = {"127.0.0.1:1": {"namespace": NAMESPACE}}
    server = add_jobs(Prometheus(folder, service), platform_jobs(stub))
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
            own = {key: value for key, value in labels.items() if key != "instance"}
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
