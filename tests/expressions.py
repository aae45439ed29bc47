"""What expressions ask for, held against the series that there are."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from scraping import Labels
from shown import MADE, MATCHER, OF_TARGETS

NAMES = re.compile(
    r"\b(?:(?:credenza|http|kube|process|prometheus|scrape_\w+)(?:_\w+|:[\w:]+)|up|ALERTS)\b"
)
MATCHERS = r'(?:\{(?P<matchers>(?:[^}"]|"[^"]*")*)\})?'
OR = re.compile(r"\|(?![^(]*\))")
"""Between alternatives, but not those in parentheses."""

ELSEWHERE = {"cert-manager", "kubelet", "kube-state-metrics"}
"""Jobs that test_scrape_configs.py has."""

Seen = Mapping[str, Sequence[Labels]]
"""Each series that there is, by its name."""

Matcher = tuple[str, str, str]
"""Label, operator and value."""


def unknown(texts: Iterable[str], seen: Seen, names: re.Pattern[str] = NAMES) -> set[str]:
    """Return what texts ask for and no series has: a name, a label, or a value.

    `names` finds the names that count. A value must be there together with the values that are
    asked of other labels; of a target's labels, where the series have them.
    """
    return {fault for text in texts for fault in _unknown(text, seen, names)}


def _unknown(text: str, seen: Seen, names: re.Pattern[str]) -> Iterator[str]:
    for found in re.finditer(rf"({names.pattern}){MATCHERS}", text):
        name, matchers = found[1], MATCHER.findall(found["matchers"] or "")
        if name not in seen:
            yield name
            continue
        shown = {label for labels in seen[name] for label in labels}
        own = [each for each in matchers if each[0] in shown or each[0] not in OF_TARGETS]
        for fault in _unmatched(own, seen[name]):
            yield f"{name}: {fault}"
    known = {label for series in seen.values() for labels in series for label in labels}
    for inside in re.findall(r"\b(?:by|on|ignoring) \(([\w, ]*)\)", text):
        yield from set(inside.split(", ")) - known - OF_TARGETS - MADE - {""}


def _unmatched(matchers: list[Matcher], series: Sequence[Labels]) -> Iterator[str]:
    for label, operator, value in matchers:
        if not any(label in labels for labels in series):
            yield label
        others = [
            (other, pattern)
            for other, how, pattern in matchers
            if other != label and how in {"=", "=~"} and operator in {"=", "=~"}
            if not _of_others(other, pattern)
        ]
        values = {
            labels.get(label, "")
            for labels in series
            if all(re.fullmatch(pattern, labels.get(other, "")) for other, pattern in others)
        }
        for part in OR.split(value):
            is_there = any(re.fullmatch(part, each) for each in values)
            if not is_there and not _of_others(label, part):
                yield f"{label}{operator}{part}"


def _of_others(label: str, value: str) -> bool:
    """Return whether a value is a job, or several, of which another test knows."""
    return label in {"job", "scrape_job"} and ELSEWHERE.issuperset(OR.split(value))
