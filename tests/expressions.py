"""What expressions ask for, held against the series that there are."""

import re
from collections.abc import Iterable, Iterator, Mapping

from scraping import Labels
from shown import MADE, MATCHER, OF_TARGETS

SELECTOR = re.compile(
    r"\b(?P<name>(?:credenza|http|kube|process|prometheus|scrape_\w+)(?:_\w+|:[\w:]+)|up|ALERTS)\b"
    r'(?:\{(?P<matchers>(?:[^}"]|"[^"]*")*)\})?'
)
OR = re.compile(r"\|(?![^(]*\))")
"""Between alternatives, but not those in parentheses."""

ELSEWHERE = {("scrape_job", "kubelet"), ("scrape_job", "kube-state-metrics")}
"""Jobs that test_scrape_configs.py has."""

Seen = Mapping[str, list[Labels]]
"""Each series that there is, by its name."""

Matcher = tuple[str, str, str]
"""Label, operator and value."""


def unknown(texts: Iterable[str], seen: Seen) -> set[str]:
    """Return what texts ask for and no series has: a name, a label, or a value.

    A value must be there together with the values that are asked of other labels.
    """
    return {fault for text in texts for fault in _unknown(text, seen)}


def _unknown(text: str, seen: Seen) -> Iterator[str]:
    for found in SELECTOR.finditer(text):
        name, matchers = found["name"], MATCHER.findall(found["matchers"] or "")
        if name not in seen:
            yield name
            continue
        own = [matcher for matcher in matchers if matcher[0] not in OF_TARGETS]
        for fault in _unmatched(own, seen[name]):
            yield f"{name}: {fault}"
    known = {label for series in seen.values() for labels in series for label in labels}
    for inside in re.findall(r"\b(?:by|on|ignoring) \(([\w, ]*)\)", text):
        yield from set(inside.split(", ")) - known - OF_TARGETS - MADE - {""}


def _unmatched(matchers: list[Matcher], series: list[Labels]) -> Iterator[str]:
    for label, operator, value in matchers:
        if not any(label in labels for labels in series):
            yield label
        others = [
            (other, pattern)
            for other, how, pattern in matchers
            if other != label and how in {"=", "=~"} and operator in {"=", "=~"}
        ]
        values = {
            labels.get(label, "")
            for labels in series
            if all(re.fullmatch(pattern, labels.get(other, "")) for other, pattern in others)
        }
        for part in OR.split(value):
            is_there = any(re.fullmatch(part, each) for each in values)
            if not is_there and (label, part) not in ELSEWHERE:
                yield f"{label}{operator}{part}"
