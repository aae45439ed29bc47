"""The life of one PostgreSQL process: start, readiness, end.

Must not know what is stored. The process is a child in a session of its own; it outlives a service
that is killed, and the next start ends it first.
"""

import asyncio
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from credenza.embedded import cluster
from credenza.embedded.account import Account, account_for, ended
from credenza.embedded.binaries import MAJOR, installed, programs
from credenza.embedded.home import EmbeddedError, Home
from credenza.embedded.leftovers import POLITE_SECONDS, REPORT_SECONDS, end_leftovers
from credenza.embedded.log import Log

CONNECT_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.2
"""How often a running server is looked at."""

NOT_YET: Final = (
    OSError,  # no socket yet
    TimeoutError,
    asyncpg.PostgresConnectionError,  # class 08: closed while connecting
)


class Server:
    """A running PostgreSQL; `start()` makes it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Log, url: str) -> None:
        self._process = process
        self._log = log
        self.url = url
        """The address of the database, for asyncpg and libpq; it holds no secret."""

    @property
    def pid(self) -> int:
        """The pid of the postmaster."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process.poll() is None

    async def wait(self) -> int:
        """Return the exit status when the server has ended (negative: by that signal).

        Whoever runs the server awaits this all along: it also keeps the log bounded.
        """
        while (status := self._process.poll()) is None:
            with suppress(OSError):  # no disk or descriptor left is no reason to look away
                self._log.cut()
            await asyncio.sleep(LOOK_SECONDS)
        return status

    async def stop(self) -> None:
        """End it: a fast shutdown; after a minute an immediate one, which loses nothing either.

        Fast rolls back what is under way and writes out what is committed; after an immediate one
        the next start recovers from the write-ahead log (manual, 18.5).
        """
        for number, patience in ((signal.SIGINT, POLITE_SECONDS), (signal.SIGQUIT, math.inf)):
            self._process.send_signal(number)
            if await ended(self._process, within=patience):
                return

    def last_lines(self) -> list[str]:
        """Return the last lines of its log; none: it has written nothing since its start."""
        return self._log.tail()


async def start(home: Home, progress: Callable[[str], None]) -> Server:
    """Start the PostgreSQL of a home and return it when it accepts connections.

    It takes as long as it takes: a recovery may need minutes, and `progress` gets a line every few
    seconds. Raises `EmbeddedError`, whose message says what to do, if it cannot be started.
    """
    try:
        return await _start(home, progress)
    except (OSError, asyncpg.PostgresError) as error:
        raise EmbeddedError(f"the embedded PostgreSQL cannot be started: {error}") from error


async def _start(home: Home, progress: Callable[[str], None]) -> Server:
    installed()
    await end_leftovers(home, progress)
    account = account_for(home)
    folder = programs(home, account)
    await cluster.make_data(home, account, folder, progress)
    socket = cluster.socket_folder(home, account)
    server = _launch(home, account, folder / "postgres", socket)
    try:
        while not await _is_ready(server, home, progress):
            await account.run([folder / "createdb", *_maintenance(socket)], cwd=home.data)
    except BaseException:  # also where the caller gives up: nothing of it stays behind
        await server.stop()
        raise
    return server


def _launch(home: Home, account: Account, program: Path, socket: Path) -> Server:
    """Start the process; what is fixed here wins over `postgresql.conf`, the rest is the user's."""
    settings = cluster.write_access(home, account) | {
        "listen_addresses": "",
        "cluster_name": home.mark,
        "port": str(cluster.PORT),
        "unix_socket_directories": str(socket),
        "unix_socket_permissions": "0700",
        "log_destination": "stderr",
        "logging_collector": "off",
    }
    options = [part for item in settings.items() for part in ("-c", "=".join(item))]
    log = Log(home.path / "postgresql.log", account)
    with os.fdopen(log.open(), "ab") as output:
        process = account.launch([program, "-D", home.data, *options], cwd=home.data, output=output)
    host = quote(str(socket), safe="/")
    url = f"postgresql://{cluster.ROLE}@/{cluster.ROLE}?host={host}&port={cluster.PORT}"
    return Server(process, log, url)


def _maintenance(socket: Path) -> list[str]:
    """Return the arguments that make the database."""
    where = ["--host", str(socket), "--port", str(cluster.PORT), "--username", cluster.ROLE]
    return [*where, "--maintenance-db", "postgres", cluster.ROLE]


async def _is_ready(server: Server, home: Home, progress: Callable[[str], None]) -> bool:
    """Wait until it accepts connections; return False where the database has to be made."""
    reported = time.monotonic()
    while server.is_running:
        try:
            state = await _state(server.url)
        except asyncpg.InvalidCatalogNameError:
            return False
        if state is None:
            return True
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            progress("\n".join((f"Waiting for PostgreSQL: {state}", *server.last_lines()[-1:])))
        await asyncio.sleep(0.02)
    raise EmbeddedError(_why_ended(server, home))


async def _state(url: str) -> str | None:
    """Return what keeps the server from accepting connections; None: nothing."""
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
    except asyncpg.CannotConnectNowError as error:
        return str(error)
    except NOT_YET:
        return "it does not answer yet"
    await connection.close()
    return None


def _why_ended(server: Server, home: Home) -> str:
    """Return what it has written last; on a full disk that is nothing."""
    free = shutil.disk_usage(home.path).free
    lines = server.last_lines() or [f"(no message; {free} bytes are free on {home.path}'s disk)"]
    return "\n".join((f"PostgreSQL {MAJOR} ended while it started:", *lines))
