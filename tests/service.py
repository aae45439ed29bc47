"""The service as a process of its own, started as users start it and spoken to by HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx2

from credenza.settings import Settings

PATIENCE = 90.0
"""Seconds that the service may take to start on a busy machine."""

CREDENZA = str(Path(sys.executable).with_name("credenza"))


def environment(**settings: object) -> dict[str, str]:
    """Return an environment in which only these settings are made."""
    own = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in own}
    return kept | {name.upper(): str(value) for name, value in settings.items()}


class Address:
    """A service that is there already; `url` is where."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, **options: Any) -> httpx2.Client:
        """Return a client whose paths are below the service."""
        return httpx2.Client(base_url=self.url, timeout=PATIENCE, **options)

    def async_client(self, connections: int = 100, **options: Any) -> httpx2.AsyncClient:
        """Return an asynchronous client with so many connections."""
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        return httpx2.AsyncClient(base_url=self.url, timeout=PATIENCE, limits=limits, **options)


class Running(Address):
    """A service that runs until it is stopped."""

    def __init__(self, folder: Path, **settings: object) -> None:
        super().__init__(url="")
        self.folder = folder
        self.settings: dict[str, object] = {"port": 0, "drain_seconds": 0} | settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> Self:
        """Start it and wait until it answers requests about documents."""
        with self.errors.open("ab") as log, self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [CREDENZA, "serve"],
                env=environment(**self.settings),
                stdout=output,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.until_ready()
        return self

    def until_ready(self) -> None:
        """Wait until readiness is answered 200."""
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the service does not start:\n{self.log()[-4000:]}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        for line in self.output.read_text().splitlines():
            if line.strip().startswith("serving"):
                self.url = line.split()[1]
        try:
            return bool(self.url) and httpx2.get(f"{self.url}/health/ready").status_code == 200
        except httpx2.HTTPError:
            return False

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process; only while it runs."""
        assert self._process is not None
        return self._process

    @property
    def errors(self) -> Path:
        """The file with its log lines."""
        return self.folder / "stderr"

    @property
    def output(self) -> Path:
        """The file with what it prints for people."""
        return self.folder / "stdout"

    def log(self) -> str:
        """Return its log so far."""
        return self.errors.read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log lines that are JSON, as objects."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.stop(signal.SIGKILL)


def run(
    *arguments: str, stdin: bytes = b"", **settings: object
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command of the service."""
    return subprocess.run(
        [CREDENZA, *arguments],
        env=environment(**settings),
        input=stdin,
        capture_output=True,
        check=False,
        timeout=100,
    )


def through(service: Running, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run a command that finds the service by its home; return its standard output."""
    done = run(*arguments, stdin=stdin, credenza_home=service.settings["credenza_home"])
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def lines_of(*values: object) -> bytes:
    """Return values as NDJSON."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)
