"""What alerts of collectors, Jaeger, Loki and Alertmanager ask for: who is asked, and what for.

tests/exposed has what each of them showed, with the shipped configuration, while something was
wrong. `make observe` asks the real ones again.
"""

import re

import pytest
import yaml

from charts import ENVIRONMENTS, template
from expressions import unknown
from manifests import ROOT, Object, kustomize, load, one, render_with, selected
from observer_cases import OBSERVERS
from promtool import RULE_FILES
from rule_cases import BY, STRANGER, TARGETS
from shown import MADE, MATCHER, OF_TARGETS, exposed
from test_traces_and_logs import BESIDE, MONITORING

JOBS = ("alertmanager", "collector", "jaeger", "loki", "node-logs")
NAME = re.compile(r"(?<![\w:])(?:otelcol|loki|alertmanager)_\w+(?![\w:])")
OBSERVER_RULES = RULE_FILES["observers.yml"]["groups"][0]["rules"]
PAGES = [ROOT / f"docs/runbooks/{rule['alert']}.md" for rule in OBSERVER_RULES if "alert" in rule]


@pytest.mark.parametrize("rule", OBSERVER_RULES, ids=lambda rule: rule.get("alert", "recorded"))
def test_rules_ask_for_what_is_shown(rule: Object) -> None:
    """Each name is one that this job shows, each value is there, and so is each label."""
    assert unknown([rule["expr"]], exposed(), NAME) == set()
    shown = {label for name in NAME.findall(rule["expr"]) for label in _labels(name)}
    for inside in re.findall(r"\b(?:by|on) \(([\w, ]*)\)", rule["expr"]):
        assert set(inside.split(", ")) <= shown | OF_TARGETS
    for label in re.findall(r"\$labels\.(\w+)", str(rule.get("annotations"))):
        assert label in OF_TARGETS | _labels_of_all()


def _labels(name: str) -> set[str]:
    return {label for labels in exposed().get(name, []) for label in labels}


def _labels_of_all() -> set[str]:
    return {label for series in exposed(*JOBS).values() for labels in series for label in labels}


def test_pages_ask_for_what_is_shown() -> None:
    """So do the runbooks; a name, a job or a value of another version is seen."""
    for page in PAGES:
        assert unknown([page.read_text()], exposed(), NAME) == set(), page
    for wrong in (
        "otelcol_exporter_sent_spans",
        'loki_discarded_samples_total{job="jaeger"}',
        'loki_discarded_samples_total{job="loki", cause="x"}',
        'loki_request_duration_seconds_count{status_code=~"6.."}',
    ):
        assert unknown([wrong], exposed(), NAME), wrong


def test_cases_have_the_labels_that_are_shown() -> None:
    """Series of the cases for promtool are those that their job shows, label by label.

    A stranger has those of all jobs.
    """
    checked = set()
    for series in {each["series"] for case in OBSERVERS for each in case.test()["input_series"]}:
        name, _, inside = series.partition("{")
        labels = {label: value for label, _, value in MATCHER.findall(inside)}
        if NAME.fullmatch(name) and labels["job"] != STRANGER["job"]:
            shown = [each.keys() - OF_TARGETS for each in exposed(labels["job"])[name]]
            assert labels.keys() - OF_TARGETS in shown, series
            checked.add(name)
    assert checked == set().union(*(NAME.findall(rule["expr"]) for rule in OBSERVER_RULES))


def test_expected_alerts_are_told_apart() -> None:
    """Each label that these alerts can have is one that cases compare."""
    asked = {
        label
        for rule in OBSERVER_RULES
        for inside in re.findall(r"\bby \(([\w, ]*)\)", rule["expr"])
        for label in inside.split(", ")
    }
    assert asked - MADE <= set(BY.split(", "))


def jobs_of_compose() -> dict[str, list[str]]:
    """Return what Prometheus scrapes under Compose, both files together: targets by job."""
    files = (MONITORING / "prometheus" / name for name in ("compose.yml", "compose-observe.yml"))
    found = [job for path in files for job in yaml.safe_load(path.read_text())["scrape_configs"]]
    names = [job["job_name"] for job in found]
    assert len(set(names)) == len(names)
    return {job["job_name"]: job["static_configs"][0]["targets"] for job in found}


def test_compose_scrapes_each() -> None:
    """Each job that rules name is scraped, where the part listens, on a network that both have."""
    found = jobs_of_compose()
    assert set(JOBS) <= found.keys()
    prometheus = BESIDE["services"]["prometheus"]
    for job in set(JOBS) - {"alertmanager"}:
        (target,) = found[job]
        name, _, port = target.partition(":")
        service = BESIDE["services"][name]
        assert set(service["networks"]) & set(prometheus["networks"]), job
        assert port == ("3100" if job == "loki" else "8888")
    ((source, place, mode),) = (mount.split(":") for mount in prometheus["volumes"])
    assert (ROOT / source).samefile(MONITORING / "prometheus/compose-observe.yml")
    assert mode == "ro"
    for name in ("compose.yml", "prometheus.yml"):
        (pattern,) = yaml.safe_load((MONITORING / "prometheus" / name).read_text())[
            "scrape_config_files"
        ]
        assert re.fullmatch(pattern.replace("*", r"[\w-]+"), place)


def test_the_cluster_scrapes_each_pod_of_the_environment() -> None:
    """Alertmanager, collector, Jaeger and Loki have the annotation, and a port that is theirs."""
    objects = template("prod", "tracing.enabled=true", "logs.enabled=true")
    for job in set(JOBS) - {"node-logs"}:
        made = one(objects, "StatefulSet", job)["spec"]["template"]
        notes = made["metadata"]["annotations"]
        assert notes["prometheus.io/scrape"] == "true"
        assert "prometheus.io/path" not in notes
        ports = {port["containerPort"]: port["name"] for port in _ports(made)}
        port = int(notes["prometheus.io/port"])
        assert ports[port] == ("http" if job in {"alertmanager", "loki"} else "metrics")
        assert (job, port) in reached_by_prometheus(objects)


def _ports(made: Object) -> list[Object]:
    (container,) = made["spec"]["containers"]
    ports: list[Object] = container["ports"]
    return ports


def reached_by_prometheus(objects: list[Object]) -> set[tuple[str, int]]:
    """Return whose pods, in any namespace, Prometheus's policies lead to, and at which ports."""
    return {
        (peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port["port"])
        for policy in objects
        if policy["kind"] == "NetworkPolicy"
        and policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name")
        == "prometheus"
        for rule in policy["spec"].get("egress", [])
        for peer in rule.get("to", [])
        for port in rule["ports"]
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_collectors_of_nodes_are_found_by_name(environment: str) -> None:
    """Both ends agree on namespace, name and port; nobody else gets in, and it takes no rights."""
    objects = render_with("logs", environment)
    beside = load(kustomize(ROOT / "k8s/node-logs" / environment))
    (namespace,) = (found for found in beside if found["kind"] == "Namespace")
    space = namespace["metadata"]["name"]
    file = one(objects, "ConfigMap", "prometheus-config")["data"]["scrape-node-logs.yml"]
    assert "NAMESPACE" not in file
    (job,) = yaml.safe_load(file)["scrape_configs"]
    found, other = job["dns_sd_configs"]
    assert (job["job_name"], found["names"]) == ("node-logs", [f"node-logs.{space}.svc"])
    assert (found["type"], other) == ("A", found | {"type": "AAAA"})
    (relabelled,) = job["relabel_configs"]
    name = re.fullmatch(relabelled["regex"], found["names"][0])
    assert name is not None
    assert (relabelled["target_label"], name[1]) == ("namespace", f"credenza-{environment}")
    service = one(beside, "Service", "node-logs")["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service.get("ipFamilyPolicy") == "SingleStack"  # with both, each would be scraped twice
    (made,) = selected(beside, {"matchLabels": service["selector"]})
    assert {"name": "metrics", "containerPort": found["port"]} in _ports(made)
    assert ("node-logs", found["port"]) in reached_by_prometheus(objects)
    way = one(objects, "NetworkPolicy", "prometheus-to-node-logs")["spec"]["egress"][0]["to"][0]
    assert way["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": space}
    (entry,) = one(beside, "NetworkPolicy", "node-logs-from-prometheus")["spec"]["ingress"]
    assert entry == {
        "from": [
            {
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": f"credenza-{environment}"}
                },
                "podSelector": {
                    "matchLabels": {
                        "app.kubernetes.io/name": "prometheus",
                        "app.kubernetes.io/part-of": "credenza",
                    }
                },
            }
        ],
        "ports": [{"protocol": "TCP", "port": "metrics"}],
    }
    assert not [each for each in beside if each["kind"] in {"Role", "RoleBinding"}]


def test_jobs_of_rules_are_those_of_the_cases() -> None:
    """Rules name no job that cases do not have, and each that is scraped is named."""
    text = " ".join(rule["expr"] for rule in OBSERVER_RULES)
    named = {part for value in re.findall(r'job=~?"([^"]+)"', text) for part in value.split("|")}
    assert named == set(JOBS) <= TARGETS.keys()
