"""The Kubernetes manifests as a cluster gets them: rendered by kubectl, loaded, searched."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent

OVERLAYS = sorted(path.parent.name for path in ROOT.glob("k8s/overlays/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in ROOT.glob("k8s/components/*/kustomization.yaml"))

Object = dict[str, Any]

LONG_RUNNING = frozenset({"Deployment", "StatefulSet", "DaemonSet"})
SECONDS = 60
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is there: seven times as fast."""


def program(name: str) -> str:
    """Return where `kubectl` or `helm` is: the version that `make test` unpacks, else PATH's."""
    found = shutil.which(name, path=f"{ROOT / '.tools/bin'}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"needs {name}: apt-get install npm, then make test (Linux on x86-64 alone)")
    return found


@cache
def render(overlay: str, root: Path = ROOT) -> list[Object]:
    """Return the objects of an overlay. Each caller gets the same ones: change copies alone."""
    return load(kustomize(root / "k8s/overlays" / overlay))


@cache
def render_with(
    component: str, overlay: str, root: Path = ROOT, *, patches: str = ""
) -> list[Object]:
    """Return the objects of an overlay to which a component is added, and patches in YAML."""
    with tempfile.TemporaryDirectory() as folder:
        within = Path(os.path.relpath(root / "k8s", folder))
        lists = {
            "resources": within / "overlays" / overlay,
            "components": within / "components" / component,
        }
        text = yaml.safe_dump({key: [str(path)] for key, path in lists.items()})
        Path(folder, "kustomization.yaml").write_text(text + patches)
        return load(kustomize(Path(folder)))


def kustomize(folder: Path) -> str:
    """Return the YAML that `kubectl apply -k` would send."""
    command = [program("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


def load(text: str) -> list[Object]:
    """Return the objects of a stream of YAML documents."""
    return [found for found in yaml.load_all(text, LOADER) if found is not None]


def title(found: Object) -> str:
    """Return what an object is called in a message."""
    return f"{found['kind']}/{found['metadata']['name']}"


def kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Return the objects of some kinds."""
    return [found for found in objects if found["kind"] in kinds]


def one(objects: list[Object], which: str, name: str = "credenza") -> Object:
    """Return the one object of a kind and name; a generated name has a hash behind it."""
    named = re.compile(rf"{name}(-[0-9a-z]{{10}})?")
    found = [each for each in kind(objects, which) if named.fullmatch(each["metadata"]["name"])]
    assert len(found) == 1, f"{which}/{name}: {len(found)} found"
    return found[0]


def pods(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Yield each object that makes pods, and the template of them."""
    for found in objects:
        if found["kind"] == "Pod":
            yield found, found
        elif found["kind"] == "CronJob":
            yield found, found["spec"]["jobTemplate"]["spec"]["template"]
        elif found["kind"] in LONG_RUNNING | {"Job", "ReplicaSet"}:
            yield found, found["spec"]["template"]


def pod(objects: list[Object], name: str) -> Object:
    """Return the specification of the pods of a workload."""
    found = [made["spec"] for owner, made in pods(objects) if owner["metadata"]["name"] == name]
    assert len(found) == 1, f"{name}: {len(found)} found"
    spec: Object = found[0]
    return spec


def containers(spec: Object) -> list[Object]:
    """Return all containers of a pod, those that only begin it as well."""
    return [
        container
        for group in ("initContainers", "containers", "ephemeralContainers")
        for container in spec.get(group, [])
    ]


def container(objects: list[Object], name: str) -> Object:
    """Return the container that a workload is named after."""
    found: Object = next(each for each in pod(objects, name)["containers"] if each["name"] == name)
    return found


def labels(template: Object) -> Mapping[str, str]:
    """Return the labels of the pods that a template makes."""
    found: Mapping[str, str] = template["metadata"].get("labels", {})
    return found


def selected(objects: list[Object], selector: Object) -> list[Object]:
    """Return the templates whose pods a label selector takes; an empty one takes all."""
    return [made for _, made in pods(objects) if _takes(selector, labels(made))]


def _takes(selector: Object, found: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}, selector
    wanted = selector.get("matchLabels", {}).items() <= found.items()
    return wanted and all(_holds(each, found) for each in selector.get("matchExpressions", []))


def _holds(expression: Object, found: Mapping[str, str]) -> bool:
    value = found.get(expression["key"])
    operators = {
        "In": value in expression.get("values", []),
        "NotIn": value not in expression.get("values", []),
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return operators[expression["operator"]]


ANYONE: Object = {}
"""What `admitted` has for a rule that names no source."""


def admitted(objects: list[Object], name: str) -> list[Object]:
    """Return from where connections to a workload's pods are let in, by all policies together."""
    (template,) = (made for owner, made in pods(objects) if owner["metadata"]["name"] == name)
    specs = [
        policy["spec"]
        for policy in kind(objects, "NetworkPolicy")
        if "Ingress" in policy["spec"]["policyTypes"]
        and _takes(policy["spec"]["podSelector"], labels(template))
    ]
    if not specs:
        return [ANYONE]
    rules = [rule for spec in specs for rule in spec.get("ingress", [])]
    return [peer for rule in rules for peer in rule.get("from") or [ANYONE]]


def ports(template: Object) -> set[str | int]:
    """Return the ports of a pod, by number and by name."""
    return {
        value
        for each in template["spec"]["containers"]
        for port in each.get("ports", [])
        for value in (port["containerPort"], port.get("name"))
        if value is not None
    }


def settings(objects: list[Object]) -> Mapping[str, str]:
    """Return the settings of the service that are no secret."""
    found: Mapping[str, str] = one(objects, "ConfigMap", "credenza-config")["data"]
    return found
