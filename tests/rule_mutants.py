"""Faults in the rules, made one at a time, and whether the cases for promtool see them.

`python tests/rule_mutants.py` tries each of them; tests/test_rules.py some. Each stands for
something that is easily written, such as a window that is too long or a label that is lost.
"""

import re
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

from alert_texts import TEXTS
from observer_cases import OBSERVERS
from platform_cases import PLATFORM
from prometheus_cases import PROMETHEUS
from promtool import ALERTS, EVERY, RULES, promtool
from rule_cases import Case
from rule_changes import CHANGES, SAME, TOLD, Others
from service_cases import SERVICE, WITHOUT
from slo_bounds import BOUNDS
from slo_cases import LONG, SHORT

KINDS = {
    "SHORT": SHORT,
    "BOUNDS": BOUNDS,
    "LONG": LONG,
    "SERVICE": SERVICE,
    "WITHOUT": WITHOUT,
    "PLATFORM": PLATFORM,
    "OBSERVERS": OBSERVERS,
    "PROMETHEUS": PROMETHEUS,
}
"""All cases."""

WORKERS = 2
"""How many faults are tried at once."""

OF_PLATFORM = {
    *("credenza:volume_full:ratio", "credenza:volume_low:ratio", "credenza:volume_horizon:seconds"),
    *("credenza:container_restarts:count", "credenza:migration_limit:seconds"),
    *("credenza:backup_age:seconds", "credenza:certificate_left:seconds"),
}
"""Where alerts of platform.yml begin, in targets.yml."""


class Mutant(NamedTuple):
    """A place in a file of the rules, and what stands there instead."""

    file: str
    start: int
    end: int
    text: str
    rule: str
    """The name of the rule that it is in."""

    def name(self) -> str:
        """Return what was changed."""
        old = " ".join((RULES / self.file).read_text()[self.start : self.end].split())
        return f"{self.file} {self.rule}@{self.start}: {old!r} is {self.text!r}"


def rules_of(file: str) -> Iterator[tuple[str, int, str]]:
    """Yield the name of each rule of a file, where it begins, and its text."""
    text = (RULES / file).read_text()
    begins = [found.start() for found in re.finditer(r"(?m)^ +- (?:alert|record): ", text)]
    for start, end in zip(begins, [*begins[1:], len(text)], strict=True):
        rule = text[start:end]
        name = re.search(r"(?:alert|record): (\S+)", rule)
        assert name is not None
        yield name[1], start, rule


def mutants() -> Iterator[Mutant]:
    """Yield each fault."""
    for file in (
        "alerts.yml",
        "slo.yml",
        "targets.yml",
        "platform.yml",
        "observers.yml",
        "prometheus.yml",
    ):
        for name, start, rule in rules_of(file):
            if name == "Watchdog":  # any value fires
                continue
            if name == "credenza:slo_bound:seconds":  # its value is for readers: `le` chooses
                rule = rule.partition("        expr:")[0]  # noqa: PLW2901 - what counts of it
            computed, _, told = rule.partition("        annotations:")
            for at, end, text in (
                *_changes(computed, CHANGES),
                *_changes(told, TOLD, rule.index(told) if told else 0),
            ):
                mutant = Mutant(file, start + at, start + end, text, name)
                if not _is_same(mutant):
                    yield mutant


def _is_same(mutant: Mutant) -> bool:
    return any(
        start - 1 <= mutant.start < end and re.fullmatch(written, mutant.text)
        for start, end, written in _same_places(mutant.file)
    )


@cache
def _same_places(file: str) -> list[tuple[int, int, str]]:
    text = (RULES / file).read_text()
    return [
        (*found.span(1), written)
        for pattern, written in SAME.items()
        for found in re.finditer(pattern, text)
    ]


def _changes(
    rule: str, changes: dict[str, Others], before: int = 0
) -> Iterator[tuple[int, int, str]]:
    """Yield what can be changed in a part of a rule: from where to where, and into what."""
    for pattern, others in changes.items():
        for found in re.finditer(pattern, rule):
            for text in others(found[0]):
                yield before + found.start(), before + found.end(), text


def concerned(mutant: Mutant) -> tuple[Case, ...]:
    """Return the cases that could see a fault: of alerts that need the rule, and short, first."""
    alerts = needing(mutant.rule)
    if mutant.file == "prometheus.yml":
        cases: tuple[Case, ...] = PROMETHEUS
    elif mutant.file == "platform.yml" or mutant.rule in OF_PLATFORM:
        cases = PLATFORM
    elif mutant.file == "observers.yml":
        cases = OBSERVERS
    elif any(case.alerts() & alerts for case in (*SHORT, *BOUNDS)):
        cases = (*BOUNDS, *SHORT, *LONG, *WITHOUT)
    else:
        cases = (*SERVICE, *WITHOUT)
    of_text = TEXTS.get(mutant.rule, ("",))[0]
    return tuple(
        sorted(
            cases,
            key=lambda case: (case.name != of_text, not case.alerts() & alerts, case.steps),
        )
    )


def needing(rule: str) -> set[str]:
    """Return the alerts that are computed from a rule, or the rule itself if it is one."""
    names, found = {rule}, {rule}
    while found:
        found = {
            each.get("record", each.get("alert"))
            for each in EVERY
            if any(name in each["expr"] for name in found)
        } - names
        names |= found
    return names & ALERTS.keys()


def changed(mutant: Mutant, folder: Path) -> Path:
    """Write all rules, with the fault, into a folder and return it."""
    rules = folder / "rules"
    shutil.copytree(RULES, rules)
    path = rules / mutant.file
    text = path.read_text()
    path.write_text(text[: mutant.start] + mutant.text + text[mutant.end :])
    return rules


def killer(mutant: Mutant, cases: Sequence[Case]) -> Case | None:
    """Return the first case that sees the fault; Prometheus may refuse it in all of them."""
    with tempfile.TemporaryDirectory() as folder:
        rules = changed(mutant, Path(folder))
        return next((case for case in cases if promtool([case], rules)), None)


def main() -> int:
    """Try each fault and write those that no case sees, with how many there are.

    A case that has seen a fault of a rule is the first to be tried with the next one of that rule.
    Where a case fails without any fault, it would seem to see all of them: none is tried then.
    """
    for cases in KINDS.values():
        if wrong := promtool(cases):
            sys.stdout.write(wrong)
            return 2
    chosen = [each for each in mutants() if all(word in each.name() for word in sys.argv[1:])]
    have_seen: defaultdict[str, list[Case]] = defaultdict(list)

    def is_seen(mutant: Mutant) -> bool:
        first = [*have_seen[mutant.rule]]
        case = killer(mutant, [*first, *(c for c in concerned(mutant) if c not in first)])
        if case is None:
            sys.stdout.write(f"{mutant.name()}\n")
            sys.stdout.flush()
        elif case not in first:
            have_seen[mutant.rule].insert(0, case)
        return case is not None

    with ThreadPoolExecutor(WORKERS) as pool:
        seen = sum(pool.map(is_seen, chosen))
    sys.stdout.write(f"{seen} of {len(chosen)} faults are seen\n")
    return seen < len(chosen)


if __name__ == "__main__":
    sys.exit(main())
