"""`make bench`: run each workload against each contender in turn, print the table, write results.

Rounds alternate between contenders, so that a noisy neighbour hits all alike; what counts is the
ratio of medians within one run.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.request import Request, urlopen

from bench import pgbench
from bench.load import Ask, Measured, wrk
from bench.processes import ROOT, served
from credenza.serving import free_port

RESULTS: Final = ROOT / "bench/results.json"
BODY: Final = json.dumps({"name": "x" * 40, "tags": ["a", "b", "c"], "text": "y" * 200, "n": 12345})
"""A document of about 300 bytes."""

JSON: Final = {"Content-Type": "application/json"}
CONNECTIONS: Final = 32

Run = Callable[[float], Measured]
"""Measures one contender in one workload for so many seconds."""


@dataclass(frozen=True)
class Plan:
    """How long, and on how many documents."""

    rounds: int
    seconds: float
    documents: int


FULL: Final = Plan(rounds=5, seconds=5.0, documents=100_000)
QUICK: Final = Plan(rounds=3, seconds=2.0, documents=10_000)

TARGETS: Final = (
    ("cached read", "credenza", "ceiling", 0.75),
    ("uncached read", "credenza without cache", "plain ASGI + asyncpg", 0.9),
    ("create, 128 connections", "credenza", "pgbench, 32 clients", 0.8),
)
"""Workload, contender, what it is divided by, and what comes out at the least."""


@contextlib.contextmanager
def contenders(plan: Plan, folder: Path) -> Iterator[dict[str, dict[str, Run]]]:
    """Start everything; give what measures each contender, by workload."""
    python = sys.executable
    credenza = str(Path(python).parent / "credenza")
    home = folder / "home"
    ports = [free_port("127.0.0.1", 0) for _ in range(4)]
    with contextlib.ExitStack() as stack:

        def start(name: str, *command: str, path: str, port: int, **variables: str) -> str:
            log = folder / f"{name}.log"
            return stack.enter_context(served(*command, port=port, path=path, log=log, **variables))

        own = start(
            "credenza",
            *(credenza, "serve"),
            path="/health/startup",
            port=ports[0],
            CREDENZA_HOME=str(home),
            PORT=str(ports[0]),
            NEAR_CACHE_BYTES=str(256 * 2**20),
        )
        fill(own, plan.documents)
        url = f"postgresql://credenza@/credenza?host={home}/socket"
        uncached = start(
            "uncached",
            *(credenza, "serve"),
            path="/health/startup",
            port=ports[1],
            DATABASE_URL=url,
            PORT=str(ports[1]),
        )
        ceiling = start(
            *("ceiling", python, "-m", "bench.peers.constant", str(ports[2])),
            path="/",
            port=ports[2],
        )
        plain = start(
            *("plain", python, "-m", "bench.peers.plain", str(ports[3]), url),
            path="/data/d1",
            port=ports[3],
        )
        yield _workloads(plan, folder, url, own, uncached, ceiling, plain)


def _workloads(
    plan: Plan, folder: Path, url: str, own: str, uncached: str, ceiling: str, plain: str
) -> dict[str, dict[str, Run]]:
    hot = [Ask("GET", f"/data/d{number}", {}) for number in range(1, 1_001)]
    known = [Ask("GET", ask.path, {"If-None-Match": etag(own, ask.path)}) for ask in hot]
    random = Random(1)
    any_ = [Ask("GET", f"/data/d{random.randint(1, plan.documents)}", {}) for _ in range(5_000)]
    create = [Ask("POST", "/data", JSON, BODY)]

    def load(address: str, asks: list[Ask], connections: int = CONNECTIONS) -> Run:
        return lambda seconds: wrk(address, asks, connections=connections, seconds=seconds)

    def inserts(seconds: float) -> Measured:
        return pgbench.inserts(url, BODY, seconds=seconds, folder=folder)

    return {
        "cached read": {"ceiling": load(ceiling, hot), "credenza": load(own, hot)},
        "conditional read (304)": {"ceiling": load(ceiling, hot), "credenza": load(own, known)},
        "uncached read": {
            "plain ASGI + asyncpg": load(plain, any_),
            "credenza without cache": load(uncached, any_),
        },
        "create, 32 connections": {
            "pgbench, 32 clients": inserts,
            "credenza": load(own, create),
        },
        "create, 128 connections": {
            "pgbench, 32 clients": inserts,
            "credenza": load(own, create, 128),
        },
    }


def fill(address: str, documents: int) -> None:
    """Store documents d1, d2, … and read the first thousand once, so that they are cached."""
    lines = "".join(f'{{"id":"d{number}","data":{BODY}}}\n' for number in range(1, documents + 1))
    headers = {"Content-Type": "application/x-ndjson"}
    request = Request(f"{address}/data/_import?view=document", lines.encode(), headers)
    with urlopen(request, timeout=600) as answer:
        assert json.load(answer)["written"] == documents
    for number in range(1, 1_001):
        with urlopen(f"{address}/data/d{number}", timeout=10) as answer:
            answer.read()


def etag(address: str, path: str) -> str:
    """Return a document's ETag."""
    with urlopen(address + path, timeout=10) as answer:
        found: str = answer.headers["ETag"]
    return found


def measure(plan: Plan, workloads: dict[str, dict[str, Run]]) -> dict[str, dict[str, list[Any]]]:
    """Return the runs of each contender in each workload, telling what is under way."""
    results: dict[str, dict[str, list[Any]]] = {}
    for workload, runs in workloads.items():
        found: dict[str, list[Any]] = {name: [] for name in runs}
        for run in runs.values():
            run(1.0)  # caches, connections and branch predictors are warm for all
        for number in range(plan.rounds):
            print(f"\r{workload}: round {number + 1} of {plan.rounds} ", end="", file=sys.stderr)
            for name, run in runs.items():
                found[name].append(asdict(run(plan.seconds)))
        print("\r" + " " * 60, end="\r", file=sys.stderr)
        results[workload] = found
        for line in table(workload, found):
            print(line, flush=True)
    return results


def table(workload: str, found: dict[str, list[Any]]) -> Iterator[str]:
    """Yield the lines of one workload: requests a second, latencies in ms, ratio to the first."""
    yield f"\n{workload}"
    first = rate(next(iter(found.values())))
    for name, runs in found.items():
        latencies = "  ".join(
            f"{percentile} {value * 1000:7.2f} ms"
            for percentile in ("p50", "p99", "p999")
            if (value := middle(runs, percentile)) is not None
        )
        yield f"  {name:26} {rate(runs):10,.0f}/s  {rate(runs) / first:5.2f}  {latencies}"


def rate(runs: list[Any]) -> float:
    """Return the median rate."""
    return median(float(run["rate"]) for run in runs)


def middle(runs: list[Any], percentile: str) -> float | None:
    """Return the median of a percentile; None where it was not measured."""
    values = [run[percentile] for run in runs if run[percentile] is not None]
    return median(values) if values else None


def machine() -> dict[str, str]:
    """Return what the numbers are of."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, on fewer documents")
    parser.add_argument("--only", default="", help="workloads whose names have this in them")
    given = parser.parse_args()
    plan = QUICK if given.quick else FULL
    with TemporaryDirectory(prefix="credenza-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with contenders(plan, folder) as workloads:
            chosen = {key: runs for key, runs in workloads.items() if given.only in key}
            results = measure(plan, chosen)
    print()
    for workload, name, by, least in TARGETS:
        if workload in results:
            ratio = rate(results[workload][name]) / rate(results[workload][by])
            print(f"{workload}: {name} ÷ {by} = {ratio:.2f} (at least {least:g} is aimed at)")
    if not given.only:
        RESULTS.write_text(
            json.dumps({"machine": machine(), "workloads": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
