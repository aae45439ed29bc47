"""The documents of the benchmark, the same for all, and which of them are asked for.

Must not know who stores them. Everything is drawn from fixed seeds, so that two runs ask the same.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any, Final

PAGE: Final = 50
"""How many documents each filter finds: a page."""

WORDS: Final = (
    *("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty"),
    *("knoll", "ledge", "mesa", "night", "ocean", "prism", "quartz", "ridge", "shore", "thorn"),
)

STRIDE: Final = 7919
"""A prime: neighbours in rank are far apart in storage, and every document has one rank."""


def ident(number: int) -> str:
    """Return a document's id: 15 characters, because PocketBase takes no others."""
    return f"d{number:014}"


@dataclass(frozen=True)
class Corpus:
    """So many documents of about 300 bytes, numbered from 0; files of them are in the folder."""

    documents: int
    folder: Path
    teams: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "teams", self.documents // PAGE)

    def value(self, number: int) -> dict[str, Any]:
        """Return a document: `team` is shared by PAGE documents, `n` by none."""
        random = Random(number)
        return {
            "name": " ".join(random.choices(WORDS, k=4)),
            "team": self.team(number % self.teams),
            "n": number,
            "tags": random.sample(WORDS, 3),
            "text": " ".join(random.choices(WORDS, k=35))[:200],
        }

    def team(self, number: int) -> str:
        """Return the name of a team."""
        return f"t{number:05}"

    @cached_property
    def texts(self) -> list[str]:
        """Every document as JSON; it has neither tabs nor backslashes."""
        return [json.dumps(self.value(number)) for number in range(self.documents)]

    @cached_property
    def values(self) -> Path:
        """A file with a document a line."""
        return self._written("values.ndjson", self.texts)

    @cached_property
    def whole(self) -> Path:
        """A file with a line a document: its id, and the document as `data`."""
        lines = (
            f'{{"id":"{ident(number)}","data":{text}}}' for number, text in enumerate(self.texts)
        )
        return self._written("whole.ndjson", list(lines))

    def _written(self, name: str, lines: list[str]) -> Path:
        path = self.folder / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def uniform(self, times: int) -> list[int]:
        """Return documents, each as likely as any other."""
        return Random(1).choices(range(self.documents), k=times)

    def zipf(self, times: int) -> list[int]:
        """Return documents by Zipf's law with s = 1: the second is read half as often."""
        weights = list(accumulate(1 / rank for rank in range(1, self.documents + 1)))
        ranks = Random(2).choices(range(self.documents), cum_weights=weights, k=times)
        return [rank * STRIDE % self.documents for rank in ranks]
