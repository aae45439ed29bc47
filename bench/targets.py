"""What the service is to reach, as ratios within one run, and whether it does.

Must not know how anything was measured; it reads results alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench import report
from bench.contenders.base import (
    CEILING,
    COPY,
    CREDENZA,
    KINTO,
    OWN,
    OWN_UNCACHED,
    PGBENCH,
    PLAIN,
    POCKETBASE,
    TRACED,
    UNCACHED,
    UNCOUNTED,
)

CACHED: Final = "cached read"
CREATE: Final = "create, 32 connections"
CREATE_MANY: Final = "create, 128 connections"
MEMORY: Final = "resident memory of a worker under load"
BUDGET: Final = 128.0
"""MiB that the manifests ask for."""

BY_OWN: Final = {OWN: 2.0, OWN_UNCACHED: 2.0}


@dataclass(frozen=True)
class Verdict:
    """A target, and what a run has shown: None where something was not measured."""

    what: str
    value: float | None
    bound: float
    unit: str = ""
    at_most: bool = False

    @property
    def aim(self) -> str:
        """The target in words."""
        words = "at most" if self.at_most else "at least"
        return f"{words} {self.bound:g}{self.unit}"

    @property
    def outcome(self) -> str:
        """Whether it is met; what is shown rounded is judged unrounded."""
        if self.value is None:
            return "not measured"
        is_met = self.value <= self.bound if self.at_most else self.value >= self.bound
        return "met" if is_met else "not met"

    @property
    def shown(self) -> str:
        """The value, if there is one."""
        return "–" if self.value is None else f"{self.value:.2f}{self.unit}"


RATIOS: Final = (
    (CACHED, CREDENZA, CEILING, 0.75),
    (CACHED, CREDENZA, POCKETBASE, 4.0),
    (CACHED, TRACED, CREDENZA, 0.95),
    (CACHED, TRACED, UNCOUNTED, 0.95),
    ("uncached read, Zipf", UNCACHED, PLAIN, 0.9),
    ("uncached read, uniform", UNCACHED, PLAIN, 0.9),
    (CREATE_MANY, CREDENZA, PGBENCH, 0.8),
    (CREATE, CREDENZA, POCKETBASE, 3.0),
    (CREATE, CREDENZA, KINTO, 30.0),
    ("import", CREDENZA, COPY, 0.6),
)
"""Workload, contender, what it is divided by, and what comes out at the least."""


def verdicts(results: dict[str, Any]) -> Iterator[Verdict]:
    """Yield every target with what a run has shown."""
    for workload, name, by, bound in RATIOS:
        value = _ratio(results, workload, name, by, "rate")
        yield Verdict(f"{workload}: {name} ÷ {by}", value, bound)
    value = _ratio(results, CACHED, CREDENZA, CEILING, "p99")
    yield Verdict(f"{CACHED}: p99 of {CREDENZA} ÷ p99 of {CEILING}", value, 2.0, at_most=True)
    memory = results.get("sizes", {}).get(MEMORY, {}).get("value")
    yield Verdict(MEMORY, memory, BUDGET, " MiB", at_most=True)
    for workload, result in results["workloads"].items():
        for own in result["contenders"]:
            if own in BY_OWN:
                name = report.ours(result["contenders"])
                value = _ratio(results, workload, name, own, "rate")
                yield Verdict(f"{workload}: {name} ÷ {own}", value, BY_OWN[own])


def _ratio(results: dict[str, Any], workload: str, name: str, by: str, key: str) -> float | None:
    value = report.value(results, workload, name, key)
    divisor = report.value(results, workload, by, key)
    return value / divisor if value is not None and divisor else None
