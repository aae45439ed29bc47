"""What several processes measure, as that of one.

What they count is in files that they share (prometheus-client's multiprocess mode). What they take
of the machine is read from `/proc` when it is asked for, and has no label of a process: a limit is
one for all of them, and a new process is a start of the same thing. Must not know what is counted.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

CPU: Final = "process_cpu_seconds"
START: Final = "process_start_time_seconds"

AS_ONE: Final[dict[str, tuple[Callable[[Iterable[float]], float], str]]] = {
    "process_virtual_memory_bytes": (sum, "Virtual memory size in bytes, of all processes."),
    "process_resident_memory_bytes": (
        sum,
        "Resident memory size in bytes, of all processes; what they share counts for each.",
    ),
    CPU: (
        sum,
        "Total user and system CPU time spent in seconds, also by processes that have ended.",
    ),
    "process_open_fds": (max, "Number of open file descriptors, of the process that has most."),
    "process_max_fds": (min, "Maximum number of open file descriptors, of each process."),
}
"""How the series of processes become one, by the family's name, and what that means."""


class Processes(MultiProcessCollector):
    """Has the series of all processes that a supervisor has started, and of itself.

    `path` is where they keep them; without it `PROMETHEUS_MULTIPROC_DIR`.
    """

    def __init__(self, supervisor: int, path: str | None = None) -> None:
        super().__init__(None, path)  # type: ignore[no-untyped-call]  # it has no types
        self._supervisor = supervisor

    def collect(self) -> Iterator[Metric]:
        """Yield each family."""
        yield from super().collect()  # type: ignore[no-untyped-call]
        measured, ended = self._measured()
        for name, (together, meaning) in AS_ONE.items():
            families = [family for family in measured if family.name == name]
            if not families:
                continue  # where there is no /proc
            values = [family.samples[0].value for family in families]
            if name == CPU:
                values.append(ended)
            yield _told(families[0], together(values), meaning)

    def _measured(self) -> tuple[list[Metric], float]:
        """Return what each process says of itself, and the CPU seconds of those that have ended.

        Both of one moment: a process that ends meanwhile would count twice, or not at all, and a
        counter that falls looks like a new one.
        """
        while True:
            ended = _ended(self._supervisor)
            measured = [
                family for pid in (self._supervisor, *self._workers()) for family in _of(pid)
            ]
            if _ended(self._supervisor) == ended:
                return measured, ended

    def _workers(self) -> Iterator[int]:
        """Yield who has a file that leaves with its process."""
        for path in Path(self._path).glob("gauge_livesum_*.db"):
            yield int(path.stem.rpartition("_")[2])


def started() -> float | None:
    """Return when this process has started, in seconds since 1970; None where nothing tells."""
    return next((family.samples[0].value for family in _of("self") if family.name == START), None)


def _of(pid: int | str) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: pid, registry=None).collect()


def _ended(pid: int) -> float:
    """Return the CPU seconds of children that a process has waited for (proc_pid_stat(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _told(family: Metric, value: float, meaning: str) -> Metric:
    """Return the family of one process as that of all."""
    family.documentation = meaning
    family.samples = [family.samples[0]._replace(value=value)]
    return family
