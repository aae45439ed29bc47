"""Kustomize and Helm say the same: field by field, but for what parity_allowed.yaml names."""

import base64
import copy
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import ENVIRONMENTS, is_hook, template
from manifests import LONG_RUNNING, ROOT, Object, kustomize, load, one, pods, render, render_with

ALLOWED = yaml.safe_load((ROOT / "tests/parity_allowed.yaml").read_text())
SUFFIX = re.compile(r"-[0-9a-z]{10}$")
SUFFIXED = tuple(ALLOWED["hash_suffixes"])
"""Kinds whose names end with a hash of their content, in k8s/ alone."""

CHECKSUM = next(iter(ALLOWED["pod_annotations"]))
QUANTITIES = frozenset({"requests", "limits", "averageValue", "sizeLimit"})
"""What the API server takes as a number and as text alike."""

NODE_PORTS = tuple(
    value
    for name, port in (
        ("service", 30080),
        ("prometheus.service", 30090),
        ("grafana.service", 30030),
    )
    for value in (f'{name}.type="NodePort"', f"{name}.nodePort={port}")
)
OPERATED = "prometheusOperator.enabled=true"
COMPONENTS = {
    ("nodeport", "staging"): NODE_PORTS,
    ("nodeport", "prod"): NODE_PORTS,
    ("loadbalancer", "prod"): ('service.type="LoadBalancer"',),
    ("hpa", "dev"): ("autoscaling.enabled=true",),
    ("ingress-tls", "dev"): ("ingress.enabled=true",),
    ("managed-services", "staging"): ("managedServices.enabled=true",),
    ("pgbouncer", "staging"): ("pgbouncer.enabled=true",),
    ("backup", "staging"): ("backup.enabled=true",),
    ("backup", "prod"): ("backup.enabled=true",),
    ("cloudnativepg", "prod"): ("cloudnativepg.enabled=true",),
    ("custom-metrics-hpa", "staging"): ("autoscaling.requestsPerSecond=100",),
    ("prometheus-operator", "dev"): (OPERATED,),
    ("cluster-metrics", "dev"): ("clusterMetrics.enabled=true",),
    ("cluster-metrics", "prod"): ("clusterMetrics.enabled=true",),
    ("kubelet-metrics", "staging"): ("kubeletMetrics.enabled=true",),
    ("cluster-metrics+kubelet-metrics", "prod"): (
        "clusterMetrics.enabled=true",
        "kubeletMetrics.enabled=true",
    ),
    ("provider-ca", "staging"): ('managedServices.caConfigMap="provider-ca"',),
    ("backup+secret-files+provider-ca", "prod"): (
        "backup.enabled=true",
        'secrets.files="credenza-passwords"',
        'managedServices.caConfigMap="provider-ca"',
    ),
    ("tracing", "staging"): ("tracing.enabled=true",),
    ("logs", "prod"): ("logs.enabled=true",),
    ("tracing+logs", "dev"): ("tracing.enabled=true", "logs.enabled=true"),
    ("secret-files", "staging"): ('secrets.files="credenza-passwords"',),
    ("backup+secret-files", "staging"): (
        "backup.enabled=true",
        'secrets.files="credenza-passwords"',
    ),
    ("backup+secret-files", "prod"): ("backup.enabled=true", 'secrets.files="credenza-passwords"'),
}
"""Components, the overlay that they are added to, and the values for them in the chart."""


def differences(kustomized: list[Object], charted: list[Object]) -> list[str]:
    """Return each difference that is not allowed: where it is, and what either side has."""
    ours = _by_name(_without_suffixes(kustomized))
    theirs = _by_name(_without_marks(charted))
    return list(_differ(ours, theirs, ""))


def _by_name(objects: list[Object]) -> dict[str, Object]:
    named = {f"{found['kind']}/{found['metadata']['name']}": _as_stored(found) for found in objects}
    assert len(named) == len(objects), "two objects have one name"
    return named


def _without_suffixes(objects: list[Object]) -> list[Object]:
    """Return the objects of k8s/ as the chart would have them."""
    kept = [copy.deepcopy(each) for each in objects if each["kind"] not in ALLOWED["kinds"]]
    names = {
        each["metadata"]["name"]: SUFFIX.sub("", each["metadata"]["name"])
        for each in kept
        if each["kind"] in SUFFIXED
    }
    for owner, made in pods(kept):
        if owner["kind"] in LONG_RUNNING and _names(made["spec"]) & set(names):
            made["metadata"].setdefault("annotations", {})[CHECKSUM] = "changes with its content"
    return [_renamed(each, names) for each in kept]


def _names(value: Any) -> set[str]:
    """Return each text in a value."""
    if isinstance(value, dict):
        return set().union(*map(_names, value.values()))
    if isinstance(value, list):
        return set().union(*map(_names, value))
    return {value} if isinstance(value, str) else set()


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(below, names) for key, below in value.items()}
    if isinstance(value, list):
        return [_renamed(below, names) for below in value]
    return names.get(value, value) if isinstance(value, str) else value


def _without_marks(objects: list[Object]) -> list[Object]:
    """Return the objects of the chart without what Helm's conventions add to them."""
    kept = [copy.deepcopy(each) for each in objects if not is_hook(each)]
    for found in kept:
        for part, names in (("labels", "labels"), ("annotations", "object_annotations")):
            has = found["metadata"].get(part, {})
            found["metadata"][part] = {key: has[key] for key in has if key not in ALLOWED[names]}
            if not found["metadata"][part]:
                del found["metadata"][part]
    for _, made in pods(kept):
        annotations = made["metadata"].get("annotations", {})
        if re.fullmatch("[0-9a-f]{64}", annotations.get(CHECKSUM, "")):
            annotations[CHECKSUM] = "changes with its content"
    return kept


def _as_stored(found: Object) -> Object:
    """Return an object as the API server stores it: a Secret's texts become its data."""
    if found["kind"] != "Secret":
        return found
    encoded = {
        key: base64.b64encode(text.encode()).decode()
        for key, text in found.get("stringData", {}).items()
    }
    rest = {key: value for key, value in found.items() if key != "stringData"}
    return rest | {"data": found.get("data", {}) | encoded}


def _differ(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            below = f"{path}.{key}" if path else key
            yield from _differ(ours.get(key, MISSING), theirs.get(key, MISSING), below)
    elif isinstance(ours, list) and isinstance(theirs, list):
        if path.rpartition(".")[2] in ALLOWED["order"]:
            ours, theirs = _in_order(ours), _in_order(theirs)
        for index in range(max(len(ours), len(theirs))):
            our, their = (side[index] if index < len(side) else MISSING for side in (ours, theirs))
            yield from _differ(our, their, f"{path}[{index}]")
    elif _plain(ours, path) != _plain(theirs, path):
        yield f"{path}: Kustomize {ours!r}, Helm {theirs!r}"


def _in_order(variables: list[Object]) -> list[Object]:
    assert not any("$(" in str(each.get("value")) for each in variables), (
        "their order has a meaning"
    )
    return sorted(variables, key=lambda each: str(each["name"]))


class _Missing:
    def __repr__(self) -> str:
        return "has nothing"


MISSING = _Missing()


def _plain(value: Any, path: str) -> tuple[type, Any]:
    """Return a value to compare with its type: 1, "1" and true are not the same."""
    steps = set(path.split("."))
    if steps & QUANTITIES and isinstance(value, int | float | str):
        return str, str(value)
    return type(value), value


def _with_components(names: str, overlay: str, folder: Path) -> list[Object]:
    """Return the objects of an overlay that names more components."""
    for part in ("k8s", "monitoring"):
        shutil.copytree(ROOT / part, folder / part)
    path = folder / "k8s/overlays" / overlay / "kustomization.yaml"
    asked = yaml.safe_load(path.read_text())
    asked.setdefault("components", []).extend(
        f"../../components/{name}" for name in names.split("+")
    )
    path.write_text(yaml.safe_dump(asked))
    return load(kustomize(path.parent))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environments_are_the_same(environment: str) -> None:
    """An overlay and the chart with the values of the environment make the same objects."""
    assert differences(render(environment), template(environment)) == []


@pytest.mark.parametrize(("components", "overlay"), COMPONENTS)
def test_components_are_the_same(components: str, overlay: str, tmp_path: Path) -> None:
    """An overlay with components and the chart with the values for them make the same objects."""
    kustomized = _with_components(components, overlay, tmp_path)
    assert kustomized != render(overlay), "they change nothing"
    charted = template(overlay, *COMPONENTS[components, overlay])
    assert differences(kustomized, charted) == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_collectors_on_nodes_are_the_same(environment: str) -> None:
    """What is in the namespace beside the environment's is the same, and nothing else changes."""
    space = f"credenza-{environment}-logs"
    charted = template(environment, "logs.enabled=true", "nodeLogs.enabled=true")
    beside = [found for found in charted if found["metadata"]["namespace"] == space]
    kustomized = load(kustomize(ROOT / "k8s/node-logs" / environment))
    assert {found["metadata"].get("namespace", space) for found in kustomized} == {space}
    assert differences(kustomized, beside) == []
    rest = [found for found in charted if found not in beside]
    assert rest == template(environment, "logs.enabled=true")


def test_who_asks_collectors_on_nodes_is_the_same(tmp_path: Path) -> None:
    """An operator's Prometheus is let into the namespace beside, by the component there."""
    page = (ROOT / "docs/how-to/observe.md").read_text()
    found = re.search(r"```yaml\n(namespace: credenza-prod-logs\n.*?)```", page, re.DOTALL)
    assert found
    text = found[1].replace("../..", os.path.relpath(ROOT / "k8s", tmp_path))
    (tmp_path / "kustomization.yaml").write_text(text)
    kustomized = load(kustomize(tmp_path))
    charted = template("prod", "logs.enabled=true", "nodeLogs.enabled=true", OPERATED)
    beside = [each for each in charted if each["metadata"]["namespace"] == "credenza-prod-logs"]
    assert one(kustomized, "NetworkPolicy", "node-logs-from-operator")
    assert differences(kustomized, beside) == []


def test_rules_can_be_left_to_another_environment() -> None:
    """By the chart's value, and by the patch that the page has: a shared Prometheus needs one."""
    page = (ROOT / "docs/how-to/production.md").read_text()
    found = re.search(r"```yaml\n(patches:\n.*?)```", page, re.DOTALL)
    assert found
    ours = render_with("prometheus-operator", "dev", patches=f"namespace: credenza-dev\n{found[1]}")
    theirs = template("dev", OPERATED, "prometheusOperator.rules=false")
    assert differences(ours, theirs) == []
    assert not [each for each in ours if each["kind"] == "PrometheusRule"]
    assert one(ours, "PodMonitor", "credenza")


def _another_port(objects: list[Object]) -> None:
    one(objects, "Service")["spec"]["ports"][0]["port"] = 8080


def _port_as_text(objects: list[Object]) -> None:
    one(objects, "Service")["spec"]["ports"][0]["port"] = "8000"


def _one_label_less(objects: list[Object]) -> None:
    del one(objects, "StatefulSet", "postgres")["metadata"]["labels"]["app.kubernetes.io/part-of"]


def _one_variable_more(objects: list[Object]) -> None:
    container = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": "TZ", "value": "UTC"})


def _one_object_more(objects: list[Object]) -> None:
    added = copy.deepcopy(one(objects, "ServiceAccount"))
    objects.append(added | {"metadata": added["metadata"] | {"name": "another"}})


def _one_object_less(objects: list[Object]) -> None:
    objects.remove(one(objects, "PodDisruptionBudget"))


def _another_password(objects: list[Object]) -> None:
    one(objects, "Secret", "redis-secret")["stringData"]["REDIS_PASSWORD"] = "another"


def _no_checksum(objects: list[Object]) -> None:
    del one(objects, "Deployment")["spec"]["template"]["metadata"]["annotations"][CHECKSUM]


def _another_setting(objects: list[Object]) -> None:
    one(objects, "ConfigMap", "credenza-config")["data"]["LOG_LEVEL"] = "error"


CHANGES: dict[str, Callable[[list[Object]], None]] = {
    "Service/credenza.spec.ports[0].port: Kustomize 8000, Helm 8080": _another_port,
    "Service/credenza.spec.ports[0].port: Kustomize 8000, Helm '8000'": _port_as_text,
    "StatefulSet/postgres.metadata.labels.app.kubernetes.io/part-of: Kustomize 'credenza', "
    "Helm has nothing": _one_label_less,
    "Deployment/credenza.spec.template.spec.containers[0].env[5]: Kustomize has nothing, "
    "Helm {'name': 'TZ', 'value': 'UTC'}": _one_variable_more,
    "ServiceAccount/another: Kustomize has nothing": _one_object_more,
    "PodDisruptionBudget/credenza: Kustomize {": _one_object_less,
    "Secret/redis-secret.data.REDIS_PASSWORD: Kustomize 'ZGV2": _another_password,
    "Deployment/credenza.spec.template.metadata.annotations.checksum/config: Kustomize "
    "'changes with its content', Helm has nothing": _no_checksum,
    "ConfigMap/credenza-config.data.LOG_LEVEL: Kustomize 'debug', Helm 'error'": _another_setting,
}
"""What the comparison says of a change in the chart's objects."""


@pytest.mark.parametrize("said", CHANGES, ids=lambda said: CHANGES[said].__name__)
def test_comparison_sees(said: str) -> None:
    """A change of one field, or an object more or less, is one difference with its place."""
    changed = copy.deepcopy(template("dev"))
    CHANGES[said](changed)
    found = differences(render("dev"), changed)
    assert [each[: len(said)] for each in found] == [said]


def test_what_is_allowed_is_needed() -> None:
    """Nothing is allowed to differ that does not, and each has its reason."""
    ours, theirs = render("dev"), template("dev")
    marks = {name for each in theirs for name in each["metadata"].get("labels", {})}
    kept = (
        one(template("dev", "backup.enabled=true"), "PersistentVolumeClaim", "backups"),
        one(template("prod", "cloudnativepg.enabled=true"), "Cluster", "database"),
    )
    templates = [made["metadata"].get("annotations", {}) for _, made in pods(theirs)]
    assert set(ALLOWED["kinds"]) <= {each["kind"] for each in ours}
    assert set(ALLOWED["labels"]) <= marks
    assert set(ALLOWED["pod_annotations"]) <= set().union(*templates)
    for each in kept:
        assert set(ALLOWED["object_annotations"]) <= set(each["metadata"]["annotations"])
    assert any(map(is_hook, theirs))
    assert all(reason for part in ALLOWED.values() for reason in part.values())
