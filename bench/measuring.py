"""Measures workloads in rounds, in each of which every contender has its turn.

So a noisy neighbour hits all alike; what counts is the ratio of medians within one run. Must not
know what the workloads are.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bench.contenders.base import Contender
from bench.contenders.starting import Started
from bench.plan import Plan
from bench.workloads import Run, Workload

Result = dict[str, Any]
"""Of one workload: its `unit`, and by contender `runs` with a `note`, or why it is `absent`."""


def measure(workload: Workload, started: Started, plan: Plan) -> Result:
    """Return the runs of each contender in a workload, telling what is under way."""
    found = {name: _entry(workload, started, name) for name in workload.contenders}
    able = [name for name in workload.contenders if "runs" in found[name]]
    runs = {name: workload.run(started.contenders[name], plan) for name in able}
    if workload.asks:
        for name in able:
            _turn(started, name, runs[name], plan.warm_up)
    for number in _told(workload, plan):
        for name in able if number % 2 else reversed(able):
            found[name]["runs"].append(_counted(started, name, runs[name], plan.seconds))
    return {"unit": workload.unit, "contenders": found}


def _entry(workload: Workload, started: Started, name: str) -> Result:
    """Return where a contender's runs come, or why it has none."""
    if name in started.missing:
        return {"absent": started.missing[name]}
    contender = started.contenders[name]
    if not isinstance(contender, Contender):
        return {"runs": []}
    lacks = contender.dialect.lacks.get(workload.operation)
    if lacks:
        return {"absent": lacks}
    note = contender.dialect.notes.get(workload.operation)
    return {"runs": []} | ({"note": note} if note else {})


def _counted(started: Started, name: str, run: Run, seconds: float) -> Result:
    """Measure once; a contender that has answered nothing gets more time."""
    for patience in (1, 4, 16):
        measured = _turn(started, name, run, seconds * patience)
        if measured["rate"]:
            return measured
    raise SystemExit(f"bench: {name} has fulfilled no request")


def _turn(started: Started, name: str, run: Run, seconds: float) -> Result:
    """Measure once, and wait until the contender has finished what was begun."""
    measured = asdict(run(seconds))
    contender = started.contenders[name]
    if isinstance(contender, Contender):
        contender.served.settle()
    return {key: value for key, value in measured.items() if value is not None}


def _told(workload: Workload, plan: Plan) -> Iterator[int]:
    rounds = plan.rounds if workload.asks else plan.transfers
    for number in range(1, rounds + 1):
        print(f"\r{workload.name}: round {number} of {rounds} ", end="", file=sys.stderr)
        yield number
    print("\r" + " " * 60, end="\r", file=sys.stderr)
