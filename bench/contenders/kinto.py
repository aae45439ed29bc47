"""Kinto on the service's PostgreSQL, under uWSGI as its documentation has it for production.

Three processes, PostgreSQL for storage, permissions and cache, as there; uWSGI's own HTTP router
with open connections stands where it has nginx. Logs of requests are off.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPResponse
from typing import Any, ClassVar, Final

from bench.client import Page, batches, client, local
from bench.contenders.base import CORPUS, CREATED, JSON, KINTO, Contender, Dialect, Place
from bench.copying import make_database, psql
from bench.corpus import PAGE, Corpus, ident
from bench.installed import place as installed
from bench.load import Ask, Measured
from bench.processes import run, served
from credenza.serving import free_port

BUCKET: Final = "/v1/buckets/bench"
BATCH: Final = 25
"""The most requests that it takes in a batch, by default."""

SOME: Final = 1_000
IMPORTED: Final = "imported"
MERGE_PATCH: Final = {"Content-Type": "application/merge-patch+json"}
OPEN: Final = {"permissions": {right: ["system.Everyone"] for right in ("read", "write")}}

CONFIGURATION: Final = """
[app:main]
use = egg:kinto
kinto.storage_backend = kinto.core.storage.postgresql
kinto.storage_url = {url}
kinto.cache_backend = kinto.core.cache.postgresql
kinto.cache_url = {url}
kinto.permission_backend = kinto.core.permission.postgresql
kinto.permission_url = {url}
kinto.userid_hmac_secret = only-for-the-benchmark
kinto.bucket_create_principals = system.Everyone

[uwsgi]
paste = config:{file}
http = 127.0.0.1:{port}
http-keepalive = 60
so-keepalive = true
processes = 3
master = true
enable-threads = true
lazy-apps = true
single-interpreter = true
buffer-size = 65535
harakiri = 120
listen = 128
disable-logging = true
die-on-term = true

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = plain

[logger_root]
level = WARNING
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain

[formatter_plain]
format = %(levelname)s %(message)s
"""


class Kinto(Dialect):
    """Records of a bucket's collections; a body has its record as `data`."""

    lacks: ClassVar = {"export": "a request gives 10,000 records at the most"}
    refuses: ClassVar = ("create", "replace", "patch")
    notes: ClassVar = {
        **dict.fromkeys(refuses, "refuses (503) writes of one millisecond; they do not count"),
        "import": f"{SOME:,} records by its batches of {BATCH}: all of them would take minutes",
        "walk": "a part of the pages: all of them would take minutes",
    }

    def all(self, collection: str) -> str:
        """Return the path of a collection."""
        return f"{BUCKET}/collections/{collection}/records"

    def create(self, text: str) -> Ask:
        """Store a record under a new id."""
        return Ask("POST", self.all(CREATED), JSON, f'{{"data": {text}}}')

    def replace(self, number: int, value: dict[str, Any]) -> Ask:
        """Replace a record."""
        return Ask("PUT", self.one(number), JSON, json.dumps({"data": value}))

    def patch(self, number: int, change: dict[str, Any]) -> Ask:
        """Merge a patch into a record."""
        return Ask("PATCH", self.one(number), MERGE_PATCH, json.dumps({"data": change}))

    def equal(self, team: str) -> Ask:
        """Read the records of a team."""
        return Ask("GET", f"{self.all(CORPUS)}?team={team}&_limit={PAGE}", {})

    def between(self, first: int, below: int) -> Ask:
        """Read the records whose `n` is in a range, both ends included."""
        path = f"{self.all(CORPUS)}?min_n={first}&max_n={below - 1}&_limit={PAGE}"
        return Ask("GET", path, {})

    def first_page(self) -> str:
        """Return the path of the first page."""
        return f"{self.all(CORPUS)}?_limit=100"

    def paged(self, answer: HTTPResponse, body: bytes) -> Page:
        """Read the answer with a page; the next one is in `Next-Page`."""
        following = answer.headers.get("Next-Page")
        return 100, following and local(following)

    def take(self, address: str) -> Measured:
        """Create some records by batches."""
        texts = self.corpus.texts[:SOME]
        asks = (_batch(self.all(IMPORTED), texts[at : at + BATCH]) for at in range(0, SOME, BATCH))
        return batches(address, asks, texts)


def _batch(path: str, texts: list[str]) -> Ask:
    requests = [{"body": {"data": json.loads(text)}} for text in texts]
    batch = {"defaults": {"method": "POST", "path": path}, "requests": requests}
    return Ask("POST", "/v1/batch", JSON, json.dumps(batch))


@contextmanager
def running(place: Place) -> Iterator[Contender]:
    """Start it on a database of its own, and fill it."""
    programs = installed("kinto") / "bin"
    make_database(place.database, "kinto")
    port = free_port("127.0.0.1", 0)
    file = place.folder / "kinto.ini"
    file.write_text(CONFIGURATION.format(url=place.made("kinto"), file=file, port=port))
    run(str(programs / "kinto"), "migrate", "--ini", str(file))
    with served(
        *(str(programs / "uwsgi"), "--ini", str(file), "--virtualenv", str(programs.parent)),
        port=port,
        path="/v1/",
        log=place.folder / "kinto.log",
        folder=place.folder,
    ) as found:
        with client(found.address) as one:
            one.ask(Ask("PUT", BUCKET, JSON, json.dumps(OPEN)))
            for name in (CORPUS, CREATED, IMPORTED):
                one.ask(Ask("PUT", f"{BUCKET}/collections/{name}", JSON, "{}"))
        _fill(place.made("kinto"), place.corpus)
        yield Contender(KINTO, found, Kinto(place.corpus))


def _fill(url: str, corpus: Corpus) -> None:
    """Fill its table: its API would take minutes."""
    file = corpus.folder / "kinto.tsv"
    parent = f"/buckets/bench/collections/{CORPUS}"
    last = datetime.now(UTC).replace(tzinfo=None)
    first = last - timedelta(milliseconds=corpus.documents)
    with file.open("w") as lines:
        lines.writelines(
            f"{ident(at)}\t{parent}\trecord\t{first + timedelta(milliseconds=at)}\t{text}\tf\n"
            for at, text in enumerate(corpus.texts)
        )
    columns = "id, parent_id, resource_name, last_modified, data, deleted"
    psql(url, f"\\copy objects ({columns}) FROM '{file}'", "VACUUM ANALYZE")
