"""What a client knows of its writes, and the judgement of what a service has kept of them.

Each value is made from a number that no other write has. So whatever is found tells which write it
is from, and whether it is whole.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from keepalive import Tally

Found = tuple[int, int | None]
"""A version, and the number of the write; None: the document is deleted."""


def value(number: int) -> dict[str, object]:
    """Return the value of a write."""
    return {"n": number, "pad": f"{number:x}-" * 20, "twice": 2 * number}


def number_of(data: Any) -> int:
    """Return the write that a stored value is from; it must be there whole and alone."""
    number: int = data["n"]
    assert data == value(number), f"half a write: {data}"
    return number


@dataclass
class History:
    """One document's writes, each sent after the one before was answered or given up."""

    last: Found = (0, None)
    """The newest write that is certain."""
    doubtful: list[int | None] = field(default_factory=list)
    """Later writes without an answer."""

    @property
    def exists(self) -> bool:
        """Whether the document is certainly there."""
        return self.last[1] is not None and None not in self.doubtful

    def acknowledge(self, number: int | None, version: int | None) -> None:
        """Note a write that was answered; the answer to a deletion tells no version."""
        if version is not None:
            assert version > self.last[0], f"version {version} after {self.last[0]}"
        self.last = (version or self.last[0], number)
        self.doubtful.clear()

    def settle(self, found: Found | None) -> None:
        """Judge what is stored now that nothing is under way; from here on it is certain."""
        stored = None if found is None else found[1]
        told = f"{found} is stored; {self.last} was acknowledged, {self.doubtful} are in doubt"
        if stored == self.last[1]:
            assert found is None or found == self.last, told
        else:
            assert stored in self.doubtful, told
            assert found is None or found[0] > self.last[0], told
        self.last = (self.last[0] if found is None else found[0], stored)
        self.doubtful.clear()


class Ledger:
    """All writes of a test; `acknowledged` counts documents."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.histories = {id_: History() for id_ in ids}
        self.created: dict[int, tuple[str, int] | None] = {}
        """Documents under ids of the server: id and version; None before the answer."""
        self.groups: list[range] = []
        """Imports without an answer: all of it is there, or nothing."""
        self.imported: set[int] = set()
        self.acknowledged = Tally()
        self._numbers = count(1)

    def take(self, size: int = 1) -> range:
        """Return the numbers of the next writes."""
        first = next(self._numbers)
        for _ in range(size - 1):
            next(self._numbers)
        return range(first, first + size)

    def settle(self, documents: list[dict[str, Any]]) -> None:
        """Compare with everything that is stored, at a time when nothing is under way."""
        found = {row["id"]: (int(row["version"]), number_of(row["data"])) for row in documents}
        assert len(found) == len(documents), "a document is there twice"
        times = Counter(number for _, number in found.values())
        assert set(times.values()) <= {1}, f"a write is there twice: {times.most_common(1)}"
        for id_, history in self.histories.items():
            history.settle(found.pop(id_, None))
        self._settle_created({number: (id_, version) for id_, (version, number) in found.items()})

    def _settle_created(self, found: dict[int, tuple[str, int]]) -> None:
        """Judge the documents whose ids the server has chosen."""
        for group in self.groups:
            there = [number for number in group if number in found]
            assert len(there) in {0, len(group)}, f"{len(there)} of {len(group)} lines are there"
            self.imported.update(there)
        self.groups.clear()
        lost = self.imported - found.keys()
        assert not lost, f"{len(lost)} acknowledged lines are lost"
        for number, answered in self.created.items():
            stored = found.get(number)
            assert answered is None or answered == stored, f"{answered}, stored: {stored}"
        assert found.keys() <= self.imported | self.created.keys(), "nobody has sent it"
        self.created = {number: found[number] for number in self.created if number in found}
