"""Load on one address of loopback by wrk, and what it measures.

Must not know what answers there. wrk is in Debian; load never comes from Python, which would be
slower than what it measures.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

SCRIPT: Final = Path(__file__).parent / "requests.lua"
MARK: Final = "BENCH "
LONG: Final = 600
"""Seconds after which wrk would end by itself; it is ended before, to a fraction of a second."""


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
    """One run: requests or documents a second, and what else was told.

    Percentiles of the latency are in seconds, `megabytes` are 1,000,000 bytes a second.
    """

    rate: float
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    megabytes: float | None = None
    refused: float | None = None
    """The share of requests that were answered with an error; they are not part of the rate."""


def write(asks: Iterable[Ask], folder: Path) -> Path:
    """Write a file of requests and return its path."""
    with tempfile.NamedTemporaryFile("w", suffix=".requests", dir=folder, delete=False) as file:
        file.writelines(ask.line for ask in asks)
    return Path(file.name)


def wrk(
    address: str, requests: Path, seconds: float, *, connections: int, tolerant: bool = False
) -> Measured:
    """Send a file's requests in turn over so many connections; a failed one ends the benchmark.

    `tolerant`: an answer with an error does not, but does not count.
    """
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("bench: wrk is missing (apt-get install wrk)")
    options = (f"-c{connections}", "-t1", f"-d{LONG}s", "--timeout", "10s")
    with subprocess.Popen(
        [program, *options, "--script", SCRIPT, address],
        env=os.environ | {"BENCH_REQUESTS": str(requests)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            begun = process.stderr.readline()  # the requests are read and the load begins
            time.sleep(seconds)
        finally:
            process.send_signal(signal.SIGINT)
        said, complaints = process.communicate()
    return _measured(said + begun + complaints, address, tolerant=tolerant)


def _measured(said: str, address: str, *, tolerant: bool) -> Measured:
    found = [line for line in said.splitlines() if line.startswith(MARK)]
    if not found:
        raise SystemExit(f"bench: wrk has failed\n{said}")
    summary = json.loads(found[0].removeprefix(MARK))
    refused, answered = summary["refused"], summary["requests"]
    failed = summary["failed"] + (0 if tolerant else refused)
    if failed:
        raise SystemExit(f"bench: {failed} requests to {address} have failed\n{said}")
    return Measured(
        (answered - refused) / summary["seconds"],
        *(summary["p50"], summary["p99"], summary["p999"]),
        refused=refused / max(answered, 1) if tolerant else None,
    )
