"""Lines that come late: of hours, of rotated files, and of another node. None is missing."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from observe.conftest import Say, Stack
from observe.nodes import as_kept, read_by
from observe.processes import Collector, Loki
from servers import until

NAMESPACE = "credenza-late"
HOURS = 12
LINES = 1200
"""What each pod has written in these hours."""

LARGE, SIZE = 1500, 8_000
"""Lines, and bytes of each: three times what Loki takes at once."""


@pytest.fixture(scope="module")
def loki(stack: Stack) -> Iterator[Loki]:
    """A Loki that has no lines yet."""
    found = Loki(stack.folder / "loki-of-late-lines").start()
    yield found
    found.stop()


class Late:
    """The files of a node's pods, and a collector that is started after they were written."""

    def __init__(self, folder: Path, loki: Loki) -> None:
        folder.mkdir()
        self._pods = folder / "pods"
        self.collector = Collector(
            folder / "collector",
            "logs/daemon-set.yaml",
            FILES=read_by(self._pods, NAMESPACE),
            LOKI=f"{loki.url}/otlp",
        )

    def file(self, pod: str, name: str = "0.log") -> Path:
        """Return a file of a pod's one container."""
        folder = self._pods / f"{NAMESPACE}_{pod}_7d4e8f6a-0000-4000-8000-000000000001/credenza"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


def add(path: Path, numbers: range, began: datetime, every: timedelta, size: int = 0) -> None:
    """Add numbered lines, of so many bytes more, as if each had come that much later.

    They begin with their pod's folder: files that begin alike are one to a collector.
    """
    with path.open("ab") as file:
        for number in numbers:
            text = f"{path.parent.parent.name} {number} {'-' * size}"
            file.write(as_kept(text.encode(), began + number * every))


def numbers_of(loki: Loki, pod: str) -> list[int]:
    """Return the numbers of the lines that Loki has of a pod, in order, each as often as it has."""
    selector = f'{{service_name="credenza", k8s_namespace_name="{NAMESPACE}"}}'
    number = '| pattern "<_> <number> <_>" | line_format "{{.number}}"'
    found = loki.lines(f'{selector} | k8s_pod_name="{pod}" {number}', since="24h")
    return sorted(int(text) for _, text in found)


def test_lines_of_hours_come_in_any_order(loki: Loki, tmp_path: Path, say: Say) -> None:
    """Twelve hours of one node, each file with a rotated one, and then those of another node."""
    began, every = datetime.now(UTC) - timedelta(hours=HOURS), timedelta(hours=HOURS) / LINES
    everything = list(range(LINES))
    for node, pods in (("first", ("a", "b")), ("second", ("c",))):
        late = Late(tmp_path / node, loki)
        for pod in pods:
            rotated = late.file(pod, "0.log.20260101-000000")
            add(rotated, range(LINES // 2), began, every)
            add(late.file(pod), range(LINES // 2, LINES), began, every)
        late.collector.start()
        try:
            for pod in pods:
                until(lambda: numbers_of(loki, pod) == everything, f"all lines of {pod}")  # noqa: B023
        finally:
            late.collector.stop()
        assert "Exporting failed" not in late.collector.log()
    say(f"{3 * LINES} lines of {HOURS} hours are in Loki, each once")


def test_rotated_files_are_read(loki: Loki, tmp_path: Path, say: Say) -> None:
    """A file is rotated twice, once without the collector and once with it: each line is there."""
    late, began, every = Late(tmp_path / "node", loki), datetime.now(UTC), timedelta(milliseconds=1)
    file = late.file("rotated")
    rotated = [late.file("rotated", f"0.log.20260101-00000{number}") for number in range(2)]

    def until_there(count: int) -> None:
        until(lambda: numbers_of(loki, "rotated") == list(range(count)), f"{count} lines, once")

    add(file, range(100), began, every)
    late.collector.start()
    try:
        until_there(100)
    finally:
        late.collector.stop()
    add(file, range(100, 200), began, every)
    file.rename(rotated[0])
    add(file, range(200, 300), began, every)
    # What the kubelet makes of older ones, and while it does.
    add(late.file("rotated", "0.log.20251231-000000.gz"), range(1000, 1100), began, every)
    add(late.file("rotated", "0.log.20251231-000001.tmp"), range(1100, 1200), began, every)
    late.collector.start()
    try:
        until_there(300)
        file.rename(rotated[1])
        rotated[0].rename(f"{rotated[0]}.gz")
        add(file, range(300, 400), began, every)
        until_there(400)
    finally:
        late.collector.stop()
    assert "20251231" not in late.collector.log(), "it tells of what it cannot read"
    say("400 lines of three files are in Loki, each once")


def test_long_lines_arrive(loki: Loki, tmp_path: Path, say: Say) -> None:
    """Lines that fill more than Loki takes at once are in several batches."""
    late = Late(tmp_path / "node", loki)
    began, every = datetime.now(UTC) - timedelta(minutes=1), timedelta(milliseconds=1)
    add(late.file("long"), range(LARGE), began, every, SIZE)
    late.collector.start()
    try:
        until(lambda: numbers_of(loki, "long") == list(range(LARGE)), f"{LARGE} lines, once")
    finally:
        late.collector.stop()
    say(f"{LARGE} lines of {SIZE} bytes are in Loki, each once")
