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
    hot: int
    """How many of them are read where all are to be in a cache."""

    asks: int
    """How many different requests a run has."""

    starts: int
    """How often a cold start is repeated."""


FULL: Final = Plan(
    rounds=5,
    seconds=2.0,
    warm_up=0.6,
    transfers=3,
    patience=6.0,
    documents=100_000,
    hot=1_000,
    asks=20_000,
    starts=5,
)
QUICK: Final = Plan(
    rounds=2,
    seconds=0.25,
    warm_up=0.1,
    transfers=1,
    patience=1.0,
    documents=5_000,
    hot=200,
    asks=2_000,
    starts=1,
)
