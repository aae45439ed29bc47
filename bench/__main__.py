"""`make bench`: run each workload against each contender in turn, and show what comes out.

A full run writes the results, the picture and the page about them. Where something fails, the run
ends with a line that says what, and nothing is written.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench import plot, report, sizes, targets
from bench.contenders.starting import Started, started
from bench.corpus import Corpus
from bench.machine import machine, versions
from bench.measuring import measure
from bench.plan import FULL, QUICK, Plan
from bench.processes import ROOT, run
from bench.workloads import CONNECTIONS, named, needed

RESULTS: Final = ROOT / "bench/results.json"
PICTURE: Final = ROOT / "docs/reference/performance.svg"
SIZES: Final = "start and size"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, on fewer documents")
    parser.add_argument("--only", default="", help="workloads whose names have this in them")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="credenza-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user where this is root
        plan = QUICK if given.quick else FULL
        results = measured(plan, folder, only=given.only)
    print("\ntargets")
    for verdict in targets.verdicts(results):
        if given.only and verdict.value is None:
            continue
        print(f"  {verdict.what:66} {verdict.shown:>10}  {verdict.aim:18} {verdict.outcome}")
    if plan is FULL and not given.only:
        keep(results)


def measured(plan: Plan, folder: Path, *, only: str) -> dict[str, Any]:
    """Measure, telling each result as soon as it is there, and return all of them."""
    chosen = named(only)
    results: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "plan": asdict(plan) | {"connections": CONNECTIONS},
        "workloads": {},
    }
    print("starting and filling what is measured …", file=sys.stderr)
    with started(needed(chosen), Corpus(plan.documents, folder), folder) as there:
        for workload in chosen:
            result = results["workloads"][workload.name] = measure(workload, there, plan)
            print(*report.lines(workload.name, result), sep="\n", flush=True)
        if not only or only in SIZES:
            add_sizes(results, there, plan)
    return results


def add_sizes(results: dict[str, Any], there: Started, plan: Plan) -> None:
    """Measure start and size, and one worker beside two."""
    print("start and size …", file=sys.stderr)
    found, workloads = sizes.size(there.place, plan)
    results["sizes"] = sizes.start(there.place, plan) | found
    results["workloads"] |= workloads
    for name, result in workloads.items():
        print(*report.lines(name, result), sep="\n", flush=True)
    print(*report.size_lines(results["sizes"]), sep="\n", flush=True)


def keep(results: dict[str, Any]) -> None:
    """Write the results, the picture, and the page."""
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    plot.draw(results, PICTURE)
    run(sys.executable, "docs/generate.py")


if __name__ == "__main__":
    main()
