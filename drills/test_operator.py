"""What a real Prometheus operator makes of the component for it: targets, rules, a way in.

Its Prometheus is in a namespace of its own, and chooses all PodMonitors and rules that there are.
"""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from cluster import ROOT, Cluster, run, wait
from operators import PLACE, PROMETHEUS, image_of

from conftest import Measured
from test_traces_and_logs import KINDS, PARTS, policies

PLACE_OF_PROMETHEUS = Cluster("monitoring")
JOBS = ("credenza", "alertmanager", "collector", "jaeger", "loki", "node-logs")
RULES = ROOT / "k8s/components/prometheus-operator/prometheus-rule.yaml"
MANIFEST = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: drill-prometheus}
rules:
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: drill-prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: drill-prometheus}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: monitoring}]
---
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata: {name: drill}
spec:
  image: prom/prometheus:v3.16.0
  version: v3.16.0
  serviceAccountName: prometheus
  securityContext: {runAsNonRoot: true, runAsUser: 65534, runAsGroup: 65534, fsGroup: 65534}
  podMonitorSelector: {}
  podMonitorNamespaceSelector: {}
  ruleSelector: {}
  ruleNamespaceSelector: {}
  evaluationInterval: 15s
"""


@pytest.fixture(scope="module")
def prometheus(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an operator's Prometheus beside the environment with all that it watches."""
    reloader = image_of("prometheus-config-reloader", PROMETHEUS.version)
    for place in (PLACE, PLACE_OF_PROMETHEUS):
        run("kubectl", "create", "namespace", place.namespace)
    PROMETHEUS.start(f"--prometheus-config-reloader={reloader}")
    before = policies(cluster)
    folder, beside = (tmp_path_factory.mktemp(name) for name in ("operated", "beside"))
    own = f"namespace: {cluster.namespace}"
    cluster.apply_with(folder, "tracing", "logs", "prometheus-operator", patches=own)
    (beside / "kustomization.yaml").write_text(_overlay(beside))
    run("kubectl", "apply", "--kustomize", beside)
    PLACE_OF_PROMETHEUS.kubectl("apply", "-f-", input_=MANIFEST)
    name = "statefulset/prometheus-drill"
    wait("the operator has made it", partial(_is_there, name))
    PLACE_OF_PROMETHEUS.rolled_out(name)
    with PLACE_OF_PROMETHEUS.forwarded("pod/prometheus-drill-0", 9090) as address:
        yield address
    run("kubectl", "delete", "--kustomize", beside)
    cluster.kubectl("delete", "podmonitors,prometheusrules", "--all")
    cluster.apply_with(folder)
    cluster.kubectl("delete", *(policies(cluster) - before))
    for part in PARTS:
        cluster.kubectl("delete", KINDS, f"--selector=app.kubernetes.io/name={part}")
    PROMETHEUS.remove()
    for kind in ("clusterrolebinding", "clusterrole"):
        run("kubectl", "delete", kind, "drill-prometheus")
    for place in (PLACE, PLACE_OF_PROMETHEUS):
        run("kubectl", "delete", "namespace", place.namespace)


def _overlay(folder: Path) -> str:
    """Return the overlay that lets the operator's Prometheus in to the nodes' collectors."""
    within = os.path.relpath(ROOT / "k8s/node-logs", folder)
    text = {
        "namespace": "credenza-dev-logs",
        "resources": [f"{within}/dev"],
        "components": [f"{within}/prometheus-operator"],
    }
    return yaml.safe_dump(text)


def _is_there(name: str) -> bool:
    return bool(PLACE_OF_PROMETHEUS.kubectl("get", name, "--ignore-not-found"))


def _get(address: str, path: str, **parameters: str) -> Any:
    with urlopen(f"{address}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:
        return json.load(answer)["data"]


def _targets(address: str) -> dict[str, dict[str, str]]:
    """Return the health of each target by its pod, by job."""
    found: dict[str, dict[str, str]] = {job: {} for job in JOBS}
    for each in _get(address, "targets", state="active")["activeTargets"]:
        found[each["labels"]["job"]][each["labels"]["pod"]] = each["health"]
    return found


def test_its_prometheus_finds_each_pod(
    cluster: Cluster, prometheus: str, measured: Measured
) -> None:
    """Each pod of the service and of who watches is a target under the name that rules ask for.

    Nodes that are one machine have one folder for lines that wait, so that one of two collectors
    waits for it.
    """
    homes = dict.fromkeys(JOBS, cluster) | {"node-logs": Cluster(f"{cluster.namespace}-logs")}

    def all_are_up() -> bool:
        for job, found in _targets(prometheus).items():
            made = {pod["metadata"]["name"] for pod in homes[job].pods(job)}
            up = {pod for pod, health in found.items() if health == "up"}
            if made != found.keys() or up != set(homes[job].ready(job)) or not up:
                return False
        return True

    wait("each pod is a target, and up where it is ready", all_are_up, seconds=240)
    spaces = {each["metric"]["namespace"] for each in _query(prometheus, "up")}
    assert spaces == {cluster.namespace}
    kept = _query(prometheus, 'count by (job) ({job=~"loki|jaeger|collector|node-logs"})')
    measured(
        f"{sum(map(len, _targets(prometheus).values()))} targets of {len(JOBS)} jobs; of "
        + ", ".join(f"{each['metric']['job']} {each['value'][1]} series" for each in kept)
    )


def _query(address: str, expression: str) -> Any:
    return _get(address, "query", query=expression)["result"]


def test_its_rules_are_well(prometheus: str, measured: Measured) -> None:
    """Each rule of the PrometheusRule is loaded, evaluates, and has what it looks at."""
    groups = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    expected = sorted(name for group in groups for rule in group["rules"] for name in _name(rule))

    def rules() -> list[Any]:
        return [rule for group in _get(prometheus, "rules")["groups"] for rule in group["rules"]]

    def are_well() -> bool:
        return {rule["health"] for rule in rules()} == {"ok"}

    wait("rules are loaded", rules)
    assert sorted(rule["name"] for rule in rules()) == expected
    wait("rules evaluate", are_well, seconds=180)
    objectives = _query(prometheus, "credenza:slo_burn_rate:ratio_rate5m")
    assert len({each["metric"]["slo"] for each in objectives}) == 5
    # One of the nodes' collectors may wait for the other, see above.
    others = 'ALERTS{job!="node-logs"}'
    assert {each["metric"]["alertname"] for each in _query(prometheus, others)} <= {"Watchdog"}
    measured(f"{len(expected)} rules are well, with an SLI of each of {len(objectives)} objectives")


def _name(rule: dict[str, Any]) -> list[str]:
    return [rule[key] for key in ("record", "alert") if key in rule]
