"""The memory limit of a process, in the layouts of control groups that containers have."""

import os
from pathlib import Path

import pytest

from credenza.cgroups import memory_limit

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
UNLIMITED = "9223372036854771712"
"""What a group of version 1 has without a limit (kernel: memory.limit_in_bytes)."""

LAYOUTS: dict[str, tuple[str, dict[str, str], int]] = {
    "version 2, a container's own view": ("0::/\n", {"memory.max": "1048576"}, 1048576),
    "version 2, no limit": ("0::/\n", {"memory.max": "max"}, MACHINE),
    "version 2, the root of the machine has no file": ("0::/\n", {}, MACHINE),
    "version 2, the host's view: the least of those above counts": (
        "0::/kubepods/pod1/a\n",
        {
            "kubepods/pod1/a/memory.max": "max",
            "kubepods/pod1/memory.max": "1048576",
            "kubepods/memory.max": "2097152",
        },
        1048576,
    ),
    "version 1, beside an empty version 2": (
        "5:cpu,cpuacct:/\n4:memory:/\n0::/\n",
        {"memory/memory.limit_in_bytes": "1048576"},
        1048576,
    ),
    "version 1, the host's path, of which the own group alone is there": (
        "4:memory:/kubepods/pod1/a\n",
        {"memory/memory.limit_in_bytes": "1048576"},
        1048576,
    ),
    "version 1, no limit": ("4:memory:/\n", {"memory/memory.limit_in_bytes": UNLIMITED}, MACHINE),
    "version 1, another controller": (
        "4:cpu:/\n",
        {"memory/memory.limit_in_bytes": "1048576"},
        MACHINE,
    ),
    "more than the machine has": ("0::/\n", {"memory.max": str(2 * MACHINE)}, MACHINE),
}
"""What `/proc/self/cgroup` says, which files there are, and what that allows."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_least_limit_counts(layout: str, tmp_path: Path) -> None:
    """Limits of the group and of those above it count, in bytes; else the machine's memory."""
    lines, files, expected = LAYOUTS[layout]
    groups, mounted = tmp_path / "cgroup", tmp_path / "mounted"
    groups.write_text(lines)
    for name, text in files.items():
        path = mounted / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert memory_limit(groups, mounted) == expected


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    """Another system than Linux has none."""
    assert memory_limit(tmp_path / "nothing", tmp_path) == MACHINE
