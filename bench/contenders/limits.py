"""The limits: what the server alone, PostgreSQL alone, and the least of both together can do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench import copying, pgbench
from bench.contenders.base import CEILING, COPY, PGBENCH, PLAIN, Contender, Dialect, Limit, Place
from bench.load import Ask
from bench.processes import served
from credenza.serving import free_port


class Ceiling(Dialect):
    """It answers everything alike, also where others answer 304."""

    def known(self, address: str, numbers: list[int]) -> list[Ask]:
        """Read documents; nothing is known."""
        return [self.read(number) for number in numbers]


@contextmanager
def ceiling(place: Place) -> Iterator[Contender]:
    """Start the service's server with constant bytes."""
    port = free_port("127.0.0.1", 0)
    command = (sys.executable, "-m", "bench.peers.constant", str(port))
    with served(*command, port=port, path="/", log=place.folder / "ceiling.log") as found:
        yield Contender(CEILING, found, Ceiling(place.corpus))


@contextmanager
def plain(place: Place) -> Iterator[Contender]:
    """Start the least that reads from the database."""
    port = free_port("127.0.0.1", 0)
    command = (sys.executable, "-m", "bench.peers.plain", str(port), place.database)
    dialect = Dialect(place.corpus)
    path = dialect.one(1)
    with served(*command, port=port, path=path, log=place.folder / "plain.log") as found:
        yield Contender(PLAIN, found, dialect)


def inserts(place: Place, body: str) -> Limit:
    """Return pgbench with the statement of a creation."""
    return Limit(
        PGBENCH,
        lambda seconds: pgbench.inserts(place.database, body, seconds, folder=place.folder),
    )


def copy(place: Place) -> Limit:
    """Return COPY of the corpus into the service's table."""
    copies = copying.Copies(place.database, place.corpus)
    return Limit(COPY, lambda _: copies.one_more())
