"""What those that Prometheus scrapes have shown: tests/exposed, and what nobody there shows."""

import re
from collections.abc import Iterator
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
    """Return the labels of each series that some of them show, or any of them, by its name."""
    found: Seen = {}
    for path in sorted(EXPOSED.glob("*.prom")):
        if not jobs or path.stem in jobs:
            for name, inside in SERIES.findall(path.read_text()):
                labels = {label: value for label, _, value in MATCHER.findall(inside)}
                found.setdefault(name, []).append(labels)
    return found


def unknown(text: str, names: re.Pattern[str]) -> set[str]:
    """Return what a text asks for by such names and nobody shows: a name, a label or a value."""
    return set(_unknown(text, names))


def _unknown(text: str, names: re.Pattern[str]) -> Iterator[str]:
    for found in re.finditer(rf"({names.pattern})(?:\{{([^}}]*)\}})?", text):
        name, matchers = found[1], MATCHER.findall(found[2] or "")
        jobs = sorted(
            {part for label, _, all_ in matchers if label == "job" for part in all_.split("|")}
        )
        for series in [exposed(job).get(name, []) for job in jobs] or [exposed().get(name, [])]:
            if not series:
                yield f"{name} of {'|'.join(jobs)}" if jobs else name
        shown = exposed(*jobs).get(name, [])
        for label, operator, value in matchers:
            values = {labels[label] for labels in shown if label in labels}
            if (values or label not in OF_TARGETS) and not _is_known(operator, value, values):
                yield f"{name}: {label}{operator}{value}"


def _is_known(operator: str, value: str, values: set[str]) -> bool:
    if operator == "=~":
        return all(any(re.fullmatch(part, each) for each in values) for part in value.split("|"))
    return operator in {"=", "!="} and value in values
