"""Cases, run by `promtool test rules`: what fires, and what a receiver reads then."""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from alert_texts import TEXTS
from rule_cases import Case

RULES = Path(__file__).parent.parent / "monitoring/prometheus/rules"
ORDER = [
    *("credenza-targets", "credenza-sli"),
    *("credenza-burn-rates-of-hours", "credenza-burn-rates-of-days"),
    *("credenza-slo-alerts", "credenza-service", "credenza-platform", "credenza-observers"),
    "prometheus",
]
"""Groups in the order that one needs the other."""

RULE_FILES = {path.name: yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yml"))}
EVERY = [
    rule for file in RULE_FILES.values() for group in file["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in EVERY if "alert" in rule}


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
        "tests": [case.test() | {"alert_rule_test": list(_told(case))} for case in cases],
    }


def _told(case: Case) -> Iterator[dict[str, Any]]:
    """Yield what alerts say when they fire last in a case that TEXTS has for them."""
    for name, (of, *summaries) in TEXTS.items():
        if of == case.name:
            minute = max(each for each in case.expected if name in case.alerts(each))
            firing = [
                each for each in map(dict, case.expected[minute]) if each["alertname"] == name
            ]
            yield {
                "eval_time": f"{minute}m",
                "alertname": name,
                "exp_alerts": [
                    {
                        "exp_labels": {k: v for k, v in labels.items() if k != "alertname"},
                        "exp_annotations": ALERTS[name]["annotations"] | {"summary": summary},
                    }
                    for labels, summary in zip(firing, summaries, strict=True)
                ],
            }
