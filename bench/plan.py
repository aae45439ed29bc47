"""How long and on how many documents the benchmark runs. Must not know what is measured."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Plan:
    """The extent of a run; times are in seconds."""

    rounds: int
    """Rounds of load, in each of which every contender has its turn."""

    seconds: float
    """How long one contender is under load in one round."""

    warm_up: float
    """How long each is under load before the first round, unmeasured."""

    transfers: int
    """Rounds of a walk, an import, an export: each reads or writes everything once."""

    patience: float
    """After so long a walk ends, with the pages that it has."""

    documents: int
    starts: int
    """How often a cold start is repeated."""


FULL: Final = Plan(
    rounds=5, seconds=2.0, warm_up=0.6, transfers=3, patience=10.0, documents=100_000, starts=5
)
QUICK: Final = Plan(
    rounds=2, seconds=0.4, warm_up=0.2, transfers=1, patience=1.5, documents=10_000, starts=2
)
