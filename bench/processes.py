"""Starts what is measured, waits until it answers, and ends it. Must not know what it is."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil

ROOT: Final = Path(__file__).parent.parent
START_SECONDS: Final = 60.0
END_SECONDS: Final = 60.0
NONE: Final[Mapping[str, str]] = {}
LOOK_SECONDS: Final = 0.05
SETTLE_SECONDS: Final = 10.0
IDLE: Final = 0.1
"""The share of a core that an idle server may use."""


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    address: str
    pid: int

    def settle(self) -> None:
        """Wait until it has finished what it was asked, so that it does not disturb the next."""
        end = time.monotonic() + SETTLE_SECONDS
        before = cpu_seconds(self.pid)
        while time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            now = cpu_seconds(self.pid)
            if now - before <= IDLE * LOOK_SECONDS:
                return
            before = now


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all that come from it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Return how long a process and its descendants have kept a core busy."""
    total = 0.0
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextlib.contextmanager
def process(
    *command: str,
    log: Path,
    variables: Mapping[str, str] = NONE,
    folder: Path = ROOT,
    end: int = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, and end it afterwards by a signal.

    It gets no variables of the environment but these and what every program needs.
    """
    environment = {name: os.environ[name] for name in ("PATH", "HOME")} | dict(variables)
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out) as running,
    ):
        try:
            yield running
        finally:
            running.send_signal(end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(END_SECONDS)
            running.kill()


@contextlib.contextmanager
def served(
    *command: str,
    port: int,
    path: str,
    log: Path,
    variables: Mapping[str, str] = NONE,
    folder: Path = ROOT,
    end: int = signal.SIGTERM,
) -> Iterator[Served]:
    """Run a server as `process` does, and give it once it answers at a path without an error."""
    address = f"http://127.0.0.1:{port}"
    with process(*command, log=log, variables=variables, folder=folder, end=end) as running:

        def is_up() -> bool:
            if running.poll() is not None:
                raise SystemExit(f"bench: {command[0]} has ended\n{log.read_text()[-2000:]}")
            return answers(address + path)

        until(is_up, f"{command[0]} at {address}")
        yield Served(address, running.pid)


def answers(url: str) -> bool:
    """Return whether a GET of this is answered without an error."""
    try:
        with urlopen(url, timeout=5):
            return True
    except HTTPError as error:
        error.close()
    except OSError:
        pass
    return False


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until a condition holds; SystemExit after a minute."""
    end = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"bench: {what} does not answer")
        time.sleep(0.005)


def run(*command: str, folder: Path = ROOT) -> str:
    """Run a program to its end and return what it has printed; SystemExit where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {command[0]} has failed\n{done.stdout}{done.stderr}")
    return done.stdout
