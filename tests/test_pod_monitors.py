"""What the Prometheus operator is told to scrape: the jobs, names and ports that rules ask for.

drills/test_operator.py has the operator itself do it.
"""

import re
from typing import Any

import pytest
import yaml

from charts import template
from manifests import ROOT, Object, kind, labels, one, pods, selected
from test_observer_metrics import JOBS
from test_scrape_configs import UNUSED, used

EACH = {"credenza", *JOBS}
OBJECTS = template(
    "prod",
    *("tracing.enabled=true", "logs.enabled=true", "nodeLogs.enabled=true"),
    *("prometheusOperator.enabled=true", 'prometheusOperator.labels={"release": "stack"}'),
)
MONITORS = {found["metadata"]["name"]: found for found in kind(OBJECTS, "PodMonitor")}
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
}
CONFIGURATION = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())


def endpoint(job: str) -> Object:
    """Return the one endpoint of a job's PodMonitor."""
    (found,) = MONITORS[job]["spec"]["podMetricsEndpoints"]
    return dict(found)


def within(job: str) -> list[Object]:
    """Return the objects of the namespace that a job's PodMonitor looks at."""
    spec, own = MONITORS[job]["spec"], MONITORS[job]["metadata"]["namespace"]
    names = spec.get("namespaceSelector", {"matchNames": [own]})["matchNames"]
    return [found for found in OBJECTS if found["metadata"].get("namespace") in names]


def test_each_job_has_one() -> None:
    """With the labels by which the operator's Prometheus chooses."""
    assert MONITORS.keys() == EACH
    for found in MONITORS.values():
        assert found["metadata"]["labels"]["release"] == "stack"


@pytest.mark.parametrize("job", sorted(EACH))
def test_it_finds_the_pods_of_its_job(job: str) -> None:
    """Of one workload, at the port that shows metrics, and under the name that rules ask for."""
    spec = MONITORS[job]["spec"]
    (made,) = selected(within(job), spec["selector"])
    assert labels(made)[spec["jobLabel"]] == job
    notes = made["metadata"].get("annotations", {})
    at = {port["name"]: port["containerPort"] for port in _ports(made)}[endpoint(job)["port"]]
    assert str(at) == notes.get("prometheus.io/port", "8888")
    assert endpoint(job).get("path", "/metrics") == notes.get("prometheus.io/path", "/metrics")
    times = endpoint(job)["interval"], endpoint(job)["scrapeTimeout"]
    own = CONFIGURATION["global"]
    assert times == (own["scrape_interval"], own["scrape_timeout"])


def _ports(made: Object) -> list[Object]:
    return [port for found in made["spec"]["containers"] for port in found.get("ports", [])]


@pytest.mark.parametrize("job", sorted(EACH))
def test_it_is_let_in_there_alone(job: str) -> None:
    """From Prometheus in the operator's namespace, to that port."""
    (made,) = selected(within(job), MONITORS[job]["spec"]["selector"])
    (way,) = (
        rule
        for policy in kind(within(job), "NetworkPolicy")
        if selected([{"kind": "Pod", **made}], policy["spec"]["podSelector"])
        for rule in policy["spec"].get("ingress", [])
        if rule.get("from") == [OPERATOR]
    )
    let_in = {port["port"] for port in way["ports"]}
    open_ = [port for port in _ports(made) if let_in & {port["name"], port["containerPort"]}]
    assert [port["name"] for port in open_] == [endpoint(job)["port"]]


@pytest.mark.parametrize("job", sorted(EACH))
def test_it_keeps_what_is_used(job: str) -> None:
    """All that rules, runbooks and dashboards ask for; of large ones nothing else."""
    rules: list[dict[str, Any]] = endpoint(job).get("metricRelabelings", [])
    assert bool(rules) == (job not in {"credenza", "alertmanager"})
    for rule in rules:
        assert (rule["sourceLabels"], rule["action"]) == (["__name__"], "keep")
        assert {name for name in used(job) if not re.fullmatch(rule["regex"], name)} == set()
        assert not re.fullmatch(rule["regex"], UNUSED)
        assert rule["regex"] in _kept()


def _kept() -> str:
    """Return what Prometheus of the environment keeps."""
    path = ROOT / "k8s/components/logs/scrape-node-logs.yml"
    (job,) = yaml.safe_load(path.read_text())["scrape_configs"]
    regexes = [rule["regex"] for rule in job["metric_relabel_configs"]]
    for each in CONFIGURATION["scrape_configs"]:
        regexes += [rule["regex"] for rule in each.get("metric_relabel_configs", [])]
    return " ".join(regexes)


def test_lines_of_an_environment_are_its_own() -> None:
    """Collectors of the nodes have the namespace whose lines they read."""
    (rule,) = endpoint("node-logs")["relabelings"]
    assert (rule["sourceLabels"], rule["targetLabel"]) == (
        ["__meta_kubernetes_namespace"],
        "namespace",
    )
    (space,) = MONITORS["node-logs"]["spec"]["namespaceSelector"]["matchNames"]
    found = re.fullmatch(rule["regex"], space)
    assert found
    assert found[1] == MONITORS["node-logs"]["metadata"]["namespace"]
    assert {made["metadata"]["name"] for made, _ in pods(within("node-logs"))} == {"node-logs"}
    assert one(within("node-logs"), "DaemonSet", "node-logs")
