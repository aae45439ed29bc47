"""Several processes on one port: starts them, again if need be, and passes signals on.

Must not know what they do. Each is `credenza one-of-many` with the database's URL in its
environment. Its standard input is a pipe that closes with the supervisor, however that ends: then
it ends too, and the port is free for the next start.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import mark_process_dead

from credenza.exposition import exposed
from credenza.processes import Processes
from credenza.settings import Settings

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds until a process that ended by itself is started again: at first, and at the most."""

log = structlog.get_logger()


async def supervise(settings: Settings, *, url: str, port: int, ready: Callable[[], None]) -> None:
    """Keep `WORKERS` processes running until SIGTERM or Ctrl-C, then wait for their end."""
    if settings.redis_url is None:
        log.warning("no near cache: several processes stay coherent only through Redis")
    with tempfile.TemporaryDirectory(prefix="credenza-metrics-") as folder:
        environment = os.environ | {
            "DATABASE_URL": url,
            "PORT": str(port),
            "PROMETHEUS_MULTIPROC_DIR": folder,
        }
        registry = CollectorRegistry()
        registry.register(Processes(os.getpid(), folder))
        with exposed(registry, settings.host, settings.metrics_port):
            crew = _Crew(environment, folder)
            crew.listen()
            ready()
            await asyncio.gather(*(crew.keep_one() for _ in range(settings.workers)))


def next_pause(last: float, ran: float) -> float:
    """Return the pause after a process that ran so long, and began after the last pause.

    In seconds. It doubles, unless the process has run for so long that no pause is called for.
    """
    if ran >= LONGEST_PAUSE:
        return FIRST_PAUSE
    return min(max(FIRST_PAUSE, 2 * last), LONGEST_PAUSE)


class _Crew:
    """The processes."""

    def __init__(self, environment: dict[str, str], folder: str) -> None:
        self._environment = environment
        self._folder = folder
        self._members: set[Process] = set()
        self._ending = asyncio.Event()
        self._last: int = signal.SIGTERM

    def listen(self) -> None:
        """Pass signals on from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._pass_on, number)

    def _pass_on(self, number: int) -> None:
        """Pass a signal on; SIGTERM that is repeated means hurry, as Ctrl-C does."""
        self._last = signal.SIGINT if self._ending.is_set() else number
        self._ending.set()
        for member in self._members:
            self._tell(member)

    def _tell(self, member: Process) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            member.send_signal(self._last)

    async def keep_one(self) -> None:
        """Run one process, again and again until all are to end."""
        pause = 0.0
        while not self._ending.is_set():
            begun = time.monotonic()
            # Ctrl-C reaches the supervisor alone, which passes it on.
            member = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "credenza", "one-of-many"),
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            self._members.add(member)
            if self._ending.is_set():  # the signal came while it was made
                self._tell(member)
            status = await member.wait()
            self._members.discard(member)
            mark_process_dead(member.pid, self._folder)  # type: ignore[no-untyped-call]
            if not self._ending.is_set():
                pause = next_pause(pause, time.monotonic() - begun)
                log.error("a process ended", pid=member.pid, status=status, pause_seconds=pause)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), pause)
