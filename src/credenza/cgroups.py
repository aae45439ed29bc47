"""How much memory a process may take: the least limit of its control groups, or the machine's.

A container's limit is that of its group. It is read anew each time: it can be changed without a
start. Must not know who asks.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

LIMITS: Final = {"": ("", "memory.max"), "memory": ("memory", "memory.limit_in_bytes")}
"""Folder and file, by the controller that `/proc/self/cgroup` names; version 2 names none."""


def memory_limit(
    groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return bytes; `groups` is as in cgroups(7), and `mounted` where the hierarchies are.

    A group of version 1 without a limit has one that no machine reaches.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min((machine, *_limits(groups, mounted)))


def _limits(groups: Path, mounted: Path) -> Iterator[int]:
    """Yield the limits of the process's groups and of those above them.

    A group's path may be the host's, of which a container sees its own group alone, as the root.
    """
    lines = []
    with suppress(OSError):  # another system than Linux
        lines = groups.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in LIMITS.keys() & controllers.split(","):
            folder, name = LIMITS[controller]
            below = Path(path.lstrip("/"))
            for group in (below, *below.parents):
                with suppress(OSError, ValueError):  # it is not there, or says "max"
                    yield int((mounted / folder / group / name).read_text())
