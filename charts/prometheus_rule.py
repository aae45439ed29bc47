"""Write the PrometheusRule of k8s/ from monitoring/prometheus/rules, or check that it is current.

The chart's is made from the same files by its template; Kustomize cannot read a file into another.
"""  # noqa: INP001 - a script beside the chart

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent
PLACE: Final = ROOT / "k8s/components/prometheus-operator/prometheus-rule.yaml"
NOTE: Final = (
    "# Made by charts/prometheus_rule.py from monitoring/prometheus/rules by `make docs`.\n"
)
FILES: Final = ("alerts", "platform", "observers", "slo", "targets")
"""All but those about Prometheus itself: the operator's has its own."""

LABELS: Final = {"app.kubernetes.io/name": "credenza", "app.kubernetes.io/part-of": "credenza"}


class Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block."""


def _text(dumper: Dumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _text)


def rule(folder: Path) -> str:
    """Return the object as YAML."""
    groups: list[Any] = []
    for name in FILES:
        groups += yaml.safe_load((folder / f"{name}.yml").read_text())["groups"]
    found = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "credenza", "labels": LABELS},
        "spec": {"groups": groups},
    }
    return NOTE + yaml.dump(found, Dumper=Dumper, sort_keys=False, width=110)


def main() -> None:
    """Write the file, or say that it is not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--rules", type=Path, default=ROOT / "monitoring/prometheus/rules")
    arguments = parser.parse_args()
    text = rule(arguments.rules)
    if not arguments.check:
        PLACE.write_text(text)
    elif not PLACE.exists() or PLACE.read_text() != text:
        sys.exit(f"{PLACE} is not what the rules say: run `make docs`")


if __name__ == "__main__":
    main()
