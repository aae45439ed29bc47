"""What those that Prometheus scrapes have shown: tests/exposed."""

import re
from functools import cache

from manifests import ROOT

EXPOSED = ROOT / "tests/exposed"
SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? \S+$", re.MULTILINE)
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
OF_TARGETS = {"job", "instance", "namespace", "pod", "node"}
"""Labels that Prometheus gives a target: monitoring/prometheus/prometheus.yml says which."""

MADE = {"__name__", "alertname", "severity", "slo", "part"}
"""Labels of rules."""

Seen = dict[str, list[dict[str, str]]]


@cache
def exposed(*jobs: str) -> Seen:
    """Return the labels of each series that some of them show, or any of them, by its name.

    Its job is one of them.
    """
    found: Seen = {}
    for path in sorted(EXPOSED.glob("*.prom")):
        if not jobs or path.stem in jobs:
            for name, inside in SERIES.findall(path.read_text()):
                labels = {label: value for label, _, value in MATCHER.findall(inside)}
                found.setdefault(name, []).append(labels | {"job": path.stem})
    return found
