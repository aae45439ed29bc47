"""json-server: everything in memory, and the whole file written anew at each write.

It is one thread, so that writes are measured with one connection: more would only wait, longer than
wrk does, and go on writing while others are measured.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

from bench.contenders.base import CORPUS, CREATED, JSON_SERVER, Contender, Dialect, Place
from bench.corpus import PAGE, Corpus, ident
from bench.installed import place as installed
from bench.load import Ask
from bench.processes import served
from credenza.serving import free_port

ALONE: Final = "one connection: it writes its whole file at each write, in one thread"


class JsonServer(Dialect):
    """Resources of its file."""

    lacks: ClassVar = {"import": "it has no way to write many at once"}
    notes: ClassVar = {
        "create": ALONE,
        "replace": ALONE,
        "patch": ALONE,
        "export": "GET of the whole collection, one JSON array",
        "walk": "pages by number",
    }
    connections: ClassVar = {"create": 1, "replace": 1, "patch": 1}

    def equal(self, team: str) -> Ask:
        """Read the documents of a team."""
        return Ask("GET", f"{self.all(CORPUS)}?team={team}&_limit={PAGE}", {})

    def between(self, first: int, below: int) -> Ask:
        """Read the documents whose `n` is in a range, both ends included."""
        path = f"{self.all(CORPUS)}?n_gte={first}&n_lte={below - 1}&_limit={PAGE}"
        return Ask("GET", path, {})

    def first_page(self) -> str:
        """Return the path of the first page."""
        return f"{self.all(CORPUS)}?_page=1&_limit=100"

    def export(self) -> Ask:
        """Read the whole collection."""
        return Ask("GET", self.all(CORPUS), {})


@contextmanager
def running(place: Place) -> Iterator[Contender]:
    """Start it on a file with the corpus."""
    program = str(installed("json-server") / "node_modules/.bin/json-server")
    file = place.folder / "json-server.json"
    file.write_text(_database(place.corpus))
    port = free_port("127.0.0.1", 0)
    with served(
        *(program, "--quiet", "--host", "127.0.0.1", "--port", str(port), str(file)),
        port=port,
        path=f"/{CREATED}",
        log=place.folder / "json-server.log",
        folder=place.folder,
    ) as found:
        yield Contender(JSON_SERVER, found, JsonServer(place.corpus))


def _database(corpus: Corpus) -> str:
    """Return its file: the corpus with ids, and an empty collection."""
    documents = ",\n".join(
        f'{{"id":"{ident(number)}",{text[1:]}' for number, text in enumerate(corpus.texts)
    )
    return f'{{"{CORPUS}":[{documents}],"{CREATED}":[]}}'
