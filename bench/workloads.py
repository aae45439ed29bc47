"""The workloads: what is asked of whom, and how each of them is measured.

Must not know how contenders are started. `WORKLOADS` is the one list; a contender that lacks the
operation of a workload stays in it, with the reason.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from bench.client import walk
from bench.contenders.base import (
    CEILING,
    COPY,
    CREDENZA,
    JSON_SERVER,
    KINTO,
    OWN,
    OWN_UNCACHED,
    PGBENCH,
    PLAIN,
    POCKETBASE,
    TRACED,
    UNCACHED,
    UNCOUNTED,
    Contender,
    Limit,
)
from bench.corpus import PAGE
from bench.load import Ask, Measured, write, wrk
from bench.plan import Plan

CONNECTIONS: Final = 32
MANY: Final = 128
REPLACED: Final = 20
"""One of so many requests of the mix is a replacement."""

Run = Callable[[float], Measured]
"""Measures one contender in one workload for so many seconds."""

Asks = Callable[[Contender, Plan], Iterable[Ask]]
"""Makes requests for a contender; a run goes through them in turn."""

Transfer = Callable[[Contender, Plan], Measured]


@dataclass(frozen=True)
class Workload:
    """One line of the list: either requests under load, or a transfer by one client."""

    name: str
    operation: str
    contenders: tuple[str, ...]
    asks: Asks | None = None
    connections: int = CONNECTIONS
    transfer: Transfer | None = None

    @property
    def unit(self) -> str:
        """What its rate counts."""
        return "requests/s" if self.asks else "documents/s"

    def run(self, contender: Contender | Limit, plan: Plan) -> Run:
        """Return what measures a contender."""
        if isinstance(contender, Limit):
            return contender.run
        if self.transfer is not None:
            transfer = self.transfer
            return lambda _: transfer(contender, plan)
        assert self.asks is not None
        file = write(self.asks(contender, plan), contender.dialect.corpus.folder)
        return partial(
            wrk,
            contender.served.address,
            file,
            connections=contender.dialect.connections.get(self.operation, self.connections),
            tolerant=self.operation in contender.dialect.refuses,
        )


def _hot(one: Contender, plan: Plan) -> Iterable[Ask]:
    return [one.dialect.read(number) for number in range(plan.hot)]


def _known(one: Contender, plan: Plan) -> Iterable[Ask]:
    return one.dialect.known(one.served.address, list(range(plan.hot)))


def _uniform(one: Contender, plan: Plan) -> Iterable[Ask]:
    return [one.dialect.read(number) for number in one.dialect.corpus.uniform(plan.asks)]


def _zipf(one: Contender, plan: Plan) -> Iterable[Ask]:
    return [one.dialect.read(number) for number in one.dialect.corpus.zipf(plan.asks)]


def _create(one: Contender, plan: Plan) -> Iterable[Ask]:
    return [one.dialect.create(one.dialect.corpus.texts[0])]


def _replacement(one: Contender, number: int) -> Ask:
    """Replace a document by one with another text, which every filter finds as before."""
    value = one.dialect.corpus.value(number)
    return one.dialect.replace(number, value | {"text": value["text"][::-1]})


def _replace(one: Contender, plan: Plan) -> Iterable[Ask]:
    return [_replacement(one, number) for number in one.dialect.corpus.uniform(plan.asks)]


def _patch(one: Contender, plan: Plan) -> Iterable[Ask]:
    numbers = one.dialect.corpus.uniform(plan.asks)
    return [one.dialect.patch(number, {"name": f"patched {number}"}) for number in numbers]


def _equal(one: Contender, plan: Plan) -> Iterable[Ask]:
    corpus = one.dialect.corpus
    teams = Random(3).choices(range(corpus.teams), k=plan.asks)
    return [one.dialect.equal(corpus.team(team)) for team in teams]


def _between(one: Contender, plan: Plan) -> Iterable[Ask]:
    corpus = one.dialect.corpus
    firsts = Random(4).choices(range(corpus.documents - PAGE), k=plan.asks)
    return [one.dialect.between(first, first + PAGE) for first in firsts]


def _mix(one: Contender, plan: Plan) -> Iterable[Ask]:
    for place, number in enumerate(one.dialect.corpus.zipf(plan.asks)):
        is_write = place % REPLACED == REPLACED - 1
        yield _replacement(one, number) if is_write else one.dialect.read(number)


def _walk(one: Contender, plan: Plan) -> Measured:
    dialect = one.dialect
    first = dialect.first_page()
    return walk(one.served.address, first, dialect.paged, patience=plan.patience)


def _import(one: Contender, plan: Plan) -> Measured:
    return one.dialect.take(one.served.address)


def _export(one: Contender, plan: Plan) -> Measured:
    return one.dialect.give(one.served.address)


PEERS: Final = (OWN, POCKETBASE, KINTO, JSON_SERVER)
ALL: Final = (CREDENZA, *PEERS)
READERS: Final = (PLAIN, UNCACHED, OWN_UNCACHED, POCKETBASE, KINTO, JSON_SERVER)

WORKLOADS: Final = (
    Workload("cached read", "read", (CEILING, TRACED, UNCOUNTED, *ALL), _hot),
    Workload("conditional read (304)", "known", (CEILING, *ALL), _known),
    Workload("uncached read, Zipf", "read", READERS, _zipf),
    Workload("uncached read, uniform", "read", READERS, _uniform),
    Workload("list by equality", "equal", ALL, _equal),
    Workload("list by range", "between", ALL, _between),
    Workload("walk of all pages", "walk", ALL, transfer=_walk),
    Workload("export", "export", ALL, transfer=_export),
    Workload("mix 95/5, 32 connections", "replace", ALL, _mix),
    Workload("mix 95/5, 128 connections", "replace", ALL, _mix, MANY),
    Workload("replace", "replace", ALL, _replace),
    Workload("merge patch", "patch", ALL, _patch),
    Workload("create, 32 connections", "create", (PGBENCH, *ALL), _create),
    Workload("create, 128 connections", "create", (PGBENCH, *ALL), _create, MANY),
    Workload("import", "import", (COPY, *ALL), transfer=_import),
)
"""In this order: what only reads comes before what makes the database grow."""


def named(part: str) -> list[Workload]:
    """Return the workloads whose names have this in them."""
    return [workload for workload in WORKLOADS if part in workload.name]


def needed(workloads: Iterable[Workload]) -> set[str]:
    """Return the contenders of these workloads."""
    return {name for workload in workloads for name in workload.contenders}
