"""Faults in the rules, made one at a time, and whether the cases for promtool see them.

`python tests/rule_mutants.py` tries each of them; tests/test_rules.py some. Each stands for
something that is easily written, such as a window that is too long or a label that is lost.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from observer_cases import OBSERVERS
from platform_cases import PLATFORM
from rule_cases import Case
from service_cases import SERVICE, WITHOUT
from slo_cases import LONG, SHORT

RULES = Path(__file__).parent.parent / "monitoring/prometheus/rules"
ORDER = [
    *("credenza-targets", "credenza-limits", "credenza-sli"),
    *("credenza-burn-rates-of-hours", "credenza-burn-rates-of-days"),
    *("credenza-slo-alerts", "credenza-service", "credenza-platform", "credenza-observers"),
    "prometheus",
]
"""Groups in the order that one needs the other."""

OF_PLATFORM = {
    *("credenza:volume_full:ratio", "credenza:volume_low:ratio", "credenza:volume_horizon:seconds"),
    *("credenza:container_restarts:count", "credenza:migration_limit:seconds"),
    *("credenza:backup_age:seconds", "credenza:certificate_left:seconds"),
}
"""Where alerts of platform.yml begin, in targets.yml."""

WINDOWS = {"5m": "1h", "30m": "6h", "1h": "5m", "2h": "1d", "6h": "30m", "1d": "2h", "3d": "6h"}
"""A window, and one that takes its place."""


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


def promtool(cases: Sequence[Case], rules: Path = RULES) -> str:
    """Return what promtool finds wrong with the rules in these cases; empty: nothing."""
    said = []
    with tempfile.TemporaryDirectory() as folder:
        for (every, without), group in groupby(cases, lambda case: (case.every, case.without)):
            path = Path(folder, "cases.yml")
            path.write_text(yaml.safe_dump(_file(list(group), rules, every, without), width=1e6))
            done = subprocess.run(
                ["promtool", "test", "rules", path], capture_output=True, text=True, check=False
            )
            if done.returncode:
                said.append(done.stdout + done.stderr)
    return "\n".join(said)


def _file(cases: list[Case], rules: Path, every: str, without: tuple[str, ...]) -> dict[str, Any]:
    files = [path for path in sorted(rules.glob("*.yml")) if path.stem not in without]
    there = set(re.findall(r"(?m)^  - name: (\S+)", "".join(path.read_text() for path in files)))
    return {
        "rule_files": [str(path) for path in files],
        "evaluation_interval": every,
        "group_eval_order": [name for name in ORDER if name in there],
        "tests": [case.test() for case in cases],
    }


def rules_of(file: str) -> Iterator[tuple[str, int, str]]:
    """Yield the name of each rule of a file, where it begins, and its text."""
    text = (RULES / file).read_text()
    begins = [found.start() for found in re.finditer(r"(?m)^ +- (?:alert|record): ", text)]
    for start, end in zip(begins, [*begins[1:], len(text)], strict=True):
        rule = text[start:end].partition("        annotations:")[0]
        name = re.search(r"(?:alert|record): (\S+)", rule)
        assert name is not None
        yield name[1], start, rule


def mutants() -> Iterator[Mutant]:
    """Yield each fault."""
    for file in (
        "alerts.yml",
        "slo.yml",
        "targets.yml",
        "limits.yml",
        "platform.yml",
        "observers.yml",
        "prometheus.yml",
    ):
        for name, start, rule in rules_of(file):
            if name == "Watchdog":  # any value fires
                continue
            if name == "credenza:slo_bound:seconds":  # its value is for readers: `le` chooses
                rule = rule.partition("        expr:")[0]  # noqa: PLW2901 - what counts of it
            for at, end, text in _changes(rule):
                yield Mutant(file, start + at, start + end, text, name)


def _changes(rule: str) -> Iterator[tuple[int, int, str]]:
    """Yield what can be changed in a rule: from where to where, and into what."""
    for pattern, others in CHANGES.items():
        for found in re.finditer(pattern, rule):
            for text in others(found[0]):
                yield found.start(), found.end(), text


def _other_numbers(text: str) -> Iterator[str]:
    """Yield half and twice a bound; of a ratio near 1, of what is left to it."""
    value = float(text)
    for factor in (0.5, 2):
        if value == 0:
            yield f"{factor - 1:g}"
        else:
            yield f"{1 - (1 - value) * factor if 0.9 < value < 1 else value * factor:g}"


def _other_windows(text: str) -> Iterator[str]:
    if text in WINDOWS:
        yield WINDOWS[text]


def _fewer_labels(text: str) -> Iterator[str]:
    labels = text.split(", ")
    for label in labels:
        yield ", ".join(each for each in labels if each != label)


def _nothing(text: str) -> Iterator[str]:
    yield ""


def _or(text: str) -> Iterator[str]:
    yield text.replace("and", "or")


def _other_bound(text: str) -> Iterator[str]:
    yield "0.05" if text == "0.1" else "0.1"


MATCHED = (
    "status|handler|method|kind|state|slo"
    "|container|cronjob|condition|owner_name|phase|persistentvolumeclaim|route|status_code"
)
"""Labels that a rule chooses series by."""

CHANGES: dict[str, Callable[[str], Iterator[str]]] = {
    r"\n +and (?!on)": _or,
    r"\n +(?:and|or|unless) [^\n]+(?<!\()(?=\n)": _nothing,
    r"(?<=[<>=] )-?[\d.]+(?=\s|$)": _other_numbers,
    r"(?<=vector\()[\d.]+(?=\)\n)": _other_numbers,
    r"(?<=expr: )30(?= )": _other_numbers,
    r"(?<=ratio_rate)\w+(?=\{| >)": _other_windows,
    r"(?<=\[)\w+(?=\])": _other_windows,
    r"(?<=by \()[\w, ]+(?=\))": _fewer_labels,
    rf'(?<=[{{,])\s*(?:{MATCHED})[=!~]+"[^"]+",?': _nothing,
    r"\n        for: \w+": _nothing,
    r'(?<=le: ")[\d.]+(?=")': _other_bound,
    r" > 0(?=\))": _nothing,
}
"""What is looked for in a rule, and what is tried in its place."""


def concerned(mutant: Mutant) -> tuple[Case, ...]:
    """Return the cases that a fault could be seen in, quick ones first."""
    every = (*SERVICE, *WITHOUT, *SHORT, *LONG)
    if mutant.file == "platform.yml" or mutant.rule in OF_PLATFORM:
        return PLATFORM
    if mutant.file == "observers.yml":
        return tuple(sorted(OBSERVERS, key=lambda case: mutant.rule not in case.alerts()))
    if mutant.file in {"slo.yml", "targets.yml"}:
        return (*SHORT, *LONG, *WITHOUT)
    if mutant.file == "limits.yml":
        return SERVICE
    firing = [case for case in every if mutant.rule in case.alerts()]
    changed = {name.partition("{")[0] for case in firing for name in case.changed}
    changed |= {
        name.partition("{")[0] for case in firing for some in case.others.values() for name in some
    }
    if any(not case.without for case in firing):
        near = [case for case in (*SHORT, *LONG) if case not in firing]
        return (*firing, *near)
    every = (*SERVICE, *WITHOUT)
    near = [case for case in every if case not in firing and _touches(case, changed)]
    return (*firing, *near, *(case for case in WITHOUT if case not in firing))


def _touches(case: Case, metrics: set[str]) -> bool:
    return any(
        name.partition("{")[0] in metrics
        for series in (case.changed, *case.others.values())
        for name in series
    )


def killed(mutant: Mutant, cases: Sequence[Case] = ()) -> bool:
    """Tell whether a case sees the fault; a rule that Prometheus refuses is seen by itself."""
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder, "rules")
        shutil.copytree(RULES, rules)
        path = rules / mutant.file
        text = path.read_text()
        path.write_text(text[: mutant.start] + mutant.text + text[mutant.end :])
        cases = cases or concerned(mutant)
        return any(promtool(cases[at : at + 4], rules) for at in range(0, len(cases), 4))


def main() -> int:
    """Try each fault and write those that no case sees."""
    chosen = [each for each in mutants() if all(word in each.name() for word in sys.argv[1:])]
    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(killed, chosen))
    left = [each.name() for each, dead in zip(chosen, seen, strict=True) if not dead]
    sys.stdout.write("".join(f"{name}\n" for name in left))
    sys.stdout.write(f"{len(chosen) - len(left)} of {len(chosen)} faults are seen\n")
    return bool(left)


if __name__ == "__main__":
    sys.exit(main())
