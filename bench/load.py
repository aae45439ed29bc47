"""Load on one address of loopback by wrk, and what it measures.

Must not know what answers there. wrk is in Debian; load never comes from Python, which would be
slower than what it measures.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

SCRIPT: Final = Path(__file__).parent / "requests.lua"
MARK: Final = "BENCH "


class Ask(NamedTuple):
    """One request of a workload."""

    method: str
    path: str
    headers: dict[str, str]
    body: str = ""

    @property
    def line(self) -> str:
        """What `requests.lua` reads; JSON text has no tab and no line end."""
        named = "|".join(f"{name}: {value}" for name, value in self.headers.items())
        return f"{self.method}\t{self.path}\t{named}\t{self.body}\n"


@dataclass(frozen=True)
class Measured:
    """One run: requests a second, and percentiles of the latency in seconds where they are told."""

    rate: float
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None


def wrk(address: str, asks: Iterable[Ask], *, connections: int, seconds: float) -> Measured:
    """Send requests in turn over so many connections; a failed one ends the measurement."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("bench: wrk is missing (apt-get install wrk)")
    with tempfile.NamedTemporaryFile("w", suffix=".requests") as file:
        file.writelines(ask.line for ask in asks)
        file.flush()
        options = (f"-c{connections}", "-t1", f"-d{seconds:g}s", "--timeout", "10s")
        done = subprocess.run(
            [program, *options, "--script", SCRIPT, address],
            env=os.environ | {"BENCH_REQUESTS": file.name},
            capture_output=True,
            text=True,
            check=False,
        )
    found = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not found:
        raise SystemExit(f"bench: wrk has failed\n{done.stdout}{done.stderr}")
    summary = json.loads(found[0].removeprefix(MARK))
    if summary["failed"]:
        raise SystemExit(f"bench: {summary['failed']} requests to {address} have failed")
    rate = summary["requests"] / summary["seconds"]
    return Measured(rate, summary["p50"], summary["p99"], summary["p999"])
