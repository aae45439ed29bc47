"""What an earlier holder of the home has left running, and its end.

Must not know how a server is started. Pids on disk are not believed: they are used again by others.
A process belongs to the home if it is one of PostgreSQL's and works in the home's data folder or
carries the home's mark in its title; a root without CAP_SYS_PTRACE (Docker's) sees titles alone.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from credenza.embedded.home import Home

try:
    import psutil
except ImportError:  # an extra; `binaries.installed` says so before this module is used
    psutil = None  # type: ignore[assignment]

NAMES: Final = {"postgres", "initdb"}
POLITE_SECONDS: Final = 60.0
"""How long a fast shutdown may take: it writes out what is only in memory."""
FIRM_SECONDS: Final = 10.0
"""How long an immediate shutdown may take: PostgreSQL itself kills its children after 5 s."""
REPORT_SECONDS: Final = 3.0


async def end_leftovers(home: Home, progress: Callable[[str], None]) -> None:
    """End what still runs on the home's data, then drop the pid file that it left.

    A fast shutdown rolls back what a dead service had under way, so that nothing of it is committed
    after this returns. Orphans of a killed postmaster keep its shared memory, and a new one refuses
    to start beside them (manual, 18.5).
    """
    begun = reported = time.monotonic()
    sent: set[tuple[int, int]] = set()
    while found := list(_processes(home)):
        waited = time.monotonic() - begun
        if not sent:
            progress("Ending the PostgreSQL that an earlier run has left")
        _signal(found, _postmaster(home), waited, sent)
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            progress(f"Waiting for its end ({len(found)} processes, {waited:.0f} s)")
        await asyncio.sleep(0.02)
    (home.data / "postmaster.pid").unlink(missing_ok=True)


def _processes(home: Home) -> Iterator["psutil.Process"]:
    for process in psutil.process_iter(["name"]):
        if process.info["name"] in NAMES and _is_of(home, process):
            yield process


def _is_of(home: Home, process: "psutil.Process") -> bool:
    try:
        seen = process.as_dict(["cwd", "cmdline"])  # None: not for this user to see
    except psutil.NoSuchProcess:
        return False
    words = seen["cmdline"] or []
    folders = {os.path.realpath(folder) for folder in (home.data, home.new_data)}
    is_marked = home.mark in " ".join(words) or str(home.new_data) in words
    return is_marked or seen["cwd"] in folders


def _postmaster(home: Home) -> int:
    """Return the pid that the data folder names; 0: none."""
    try:
        return int((home.data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return 0


def _signal(
    found: list["psutil.Process"], postmaster: int, waited: float, sent: set[tuple[int, int]]
) -> None:
    """Send each process, once, the signal that is due after `waited` seconds.

    A living postmaster is asked for all (SIGINT: fast shutdown); orphans are asked one by one
    (SIGTERM: roll back and leave).
    """
    heads = [process for process in found if process.pid == postmaster]
    patience = POLITE_SECONDS if heads else FIRM_SECONDS
    number = signal.SIGINT if heads else signal.SIGTERM
    if waited > patience:
        number = signal.SIGQUIT
    if waited > patience + FIRM_SECONDS:
        heads, number = [], signal.SIGKILL
    for process in heads or found:
        if (process.pid, number) not in sent:
            sent.add((process.pid, number))
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
