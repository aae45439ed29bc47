"""The Helm chart as a cluster gets it: rendered by helm, or refused with a message."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from manifests import ROOT, SECONDS, Object, load, program

CHART = ROOT / "charts/credenza"
ENVIRONMENTS = ("dev", "staging", "prod")
HOOK = "helm.sh/hook"


class Refused(Exception):
    """The chart does not take these values."""


def helm(*arguments: str | Path) -> str:
    """Return what helm prints; Refused with its complaint where it fails."""
    command = [program("helm"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode != 0:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


@cache
def rendered(environment: str = "", *values: str, chart: Path = CHART) -> str:
    """Return the chart's YAML with the values of an environment and `path=JSON` on top of them."""
    files = [f"--values={chart}/values-{environment}.yaml"] if environment else []
    over = [f"--set-json={value}" for value in values]
    namespace = f"--namespace=credenza-{environment or 'none'}"
    return helm("template", "credenza", chart, namespace, *files, *over)


def template(environment: str = "", *values: str, chart: Path = CHART) -> list[Object]:
    """Return the chart's objects."""
    return load(rendered(environment, *values, chart=chart))


def is_hook(found: Object) -> bool:
    """Tell whether an object is made by a Helm command of its own, such as `helm test`."""
    return HOOK in found["metadata"].get("annotations", {})


def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return each value that has none below it, by its path; lists and empty maps are whole."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    found: dict[tuple[str, ...], Any] = {}
    for key, below in value.items():
        found |= leaves(below, (*path, key))
    return found
