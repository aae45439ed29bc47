"""Logs: one canonical line a request, and never what clients store, ask for or hide."""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import structlog

from conftest import Serve
from credenza.forms import LogLevel
from credenza.logs import set_up_logs
from credenza.records import FLUSH_SECONDS, Records
from credenza.telemetry import Metrics
from credenza.tracing import Traced
from databases import connected, create_database
from servers import Postgres, Valkey, until
from service import Running

MARK = "Hemlig-4711"
"""Stands in every document, key, query, token and password; looked for in any case."""

NDJSON = {"Content-Type": "application/x-ndjson"}
MADE_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def canonical(running: Running, answer: httpx2.Response) -> dict[str, Any]:
    """Return the one canonical line of an answered request."""
    wanted = answer.headers["x-request-id"]

    def found() -> list[dict[str, Any]]:
        whole = running.log().rpartition("\n")[0].splitlines()
        lines = [json.loads(text) for text in whole if wanted in text]
        return [line for line in lines if line["event"] == "request"]

    until(lambda: bool(found()), f"no line for {wanted}")
    (line,) = found()
    return line


async def execute(server: Postgres, name: str, *texts: str) -> None:
    """Run statements in a database."""
    async with connected(server, name) as connection:
        for text in texts:
            await connection.execute(text)


def said(running: Running) -> str:
    """Return the whole output of a service, in lower case."""
    return (running.log() + running.output.read_text()).lower()


def documents(family: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return requests of each kind about documents, well-formed and not, marked all over."""
    one, value = f"{family}/{MARK}", {MARK: [MARK, {MARK: MARK}]}
    return [
        ("POST", family, {"json": value}),
        ("POST", family, {"content": f'{{"{MARK}": "{MARK}'}),
        ("POST", family, {"content": f'"{MARK}\\u0000"'}),
        ("POST", family, {"content": f'"{MARK}"', "headers": {"Content-Type": f"text/{MARK}"}}),
        ("POST", family, {"content": f'"{MARK * 100_000}"'}),
        ("PUT", one, {"json": value}),
        ("PUT", one, {"json": value, "headers": {"If-Match": MARK}}),
        ("PUT", one, {"json": value, "headers": {"If-Match": f'"{MARK}"'}}),
        ("GET", one, {}),
        ("GET", one, {"headers": {"Authorization": f"Basic {MARK}"}}),
        ("HEAD", one, {}),
        ("PATCH", one, {"json": {MARK: None, f"{MARK}-2": 1}}),
        ("PATCH", one, {"content": f"[{MARK}"}),
        ("GET", family, {"params": {MARK: f"eq.{MARK}", "order": MARK, "select": MARK}}),
        ("GET", family, {"params": {MARK: MARK}}),
        ("GET", family, {"params": {"cursor": MARK}}),
        ("GET", f"{family}/_export", {"params": {MARK: f"gt.{MARK}"}}),
        ("POST", f"{family}/_import", {"content": f'"{MARK}"\n{MARK}\n', "headers": NDJSON}),
        ("DELETE", one, {}),
        ("DELETE", one, {}),
        ("BREW", f"{one}/{MARK}", {}),
    ]


def others() -> list[tuple[str, str, dict[str, Any]]]:
    """Return marked requests about everything else."""
    settings = f"/v1/collections/{MARK.lower()}"
    return [
        ("PUT", settings, {"json": {MARK: MARK}}),
        ("PUT", settings, {"json": {}}),
        ("GET", f"/v1/collections?after={MARK}", {}),
        ("DELETE", settings, {"headers": {"If-Match": "*"}}),
        *(("GET", path, {}) for path in ("/v1", "/health", "/metrics", "/openapi.json", "/docs")),
        ("GET", f"/{MARK}/%00/{MARK}?{MARK}={MARK}", {}),
        ("GET", f"/assets/{MARK}", {}),
    ]


def test_nothing_that_is_anyones_is_logged(
    serve: Serve, postgres: Postgres, valkey: Valkey
) -> None:
    """No document, key, id, query, token or password is anywhere in the output of any request.

    Also not at the loudest level, and where the service itself fails, with a traceback.
    """
    name = asyncio.run(create_database(postgres))
    running = serve(
        database_url=postgres.database(name).replace("tester@", f"tester:{MARK}@"),
        redis_url=valkey.url.replace("redis://", f"redis://default:{MARK}@"),
        auth_token=MARK,
        secret_key=f"{MARK},{MARK}",
        log_level="debug",
    )
    with running.client(headers={"Authorization": f"Bearer {MARK}"}) as client:
        until(lambda: client.get("/health").json()["status"] == "ok", "Redis is not used")
        for family in ("/data", f"/v1/data/{MARK.lower()}"):
            send(running, client, documents(family))
        send(running, client, others())
        # PostgreSQL's message about a constraint shows the row.
        broken = "ALTER TABLE documents ADD CHECK (collection = '') NOT VALID"
        asyncio.run(execute(postgres, name, broken))
        send(running, client, documents("/data"))
        failed = client.post("/data", json={MARK: MARK})
        assert (failed.status_code, failed.json()["code"]) == (500, "internal")
        assert canonical(running, failed)["status"] == 500
    assert "checkviolation" in said(running)
    assert MARK.lower() not in said(running)


def send(
    running: Running, client: httpx2.Client, requests: list[tuple[str, str, dict[str, Any]]]
) -> None:
    """Send requests; each has its line."""
    for method, path, options in requests:
        answer = client.request(method, path, **options)
        assert canonical(running, answer)["status"] == answer.status_code


def test_the_canonical_line(client: httpx2.Client, service: Running, collection: str) -> None:
    """It has the request's id, method, route, status, duration, cache outcome, SQL count alone."""
    for name in "ab":
        answer = client.put(f"/v1/data/{collection}/{name}", json=1)
        created = canonical(service, answer)
        assert (created["status"], created["cache"]) == (201, None)
        assert created["sql"] >= 1
    answers = [client.get(f"/v1/data/{collection}/{name}") for name in "abb"]
    lines = [canonical(service, answer) for answer in answers]
    outcomes = [("miss", 1), ("miss", 1), ("hit-near", 0)]
    assert [(line["cache"], line["sql"]) for line in lines] == outcomes
    line = lines[-1]
    assert set(line) == {
        *("event", "level", "timestamp", "request_id", "method", "route", "status"),
        *("duration_ms", "cache", "sql"),
    }
    assert (line["method"], line["status"]) == ("GET", 200)
    assert 0 < line["duration_ms"] < 60_000
    assert line["route"] == "/v1/data/{collection}/{id}"


@pytest.fixture
def errors(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    """What this process has written to standard error, by lines; structlog is as it was after."""

    def read() -> list[str]:
        return capfd.readouterr().err.splitlines()

    yield read
    structlog.reset_defaults()


async def test_the_fast_line_is_structlog_s(errors: Callable[[], list[str]]) -> None:
    """The line that is put together by hand has structlog's keys, in its order, and values."""
    set_up_logs(level="info", as_json=True)
    other = Traced("4bf92f3577b34da6a3ce929d0e0e4736", None)
    kinds = [
        (0.0123456, "hit-near", None, ""),
        (0.0, "", other, "unread"),
        (12.5, "miss", None, "failed"),
    ]
    for seconds, cache, traced, broken in kinds:
        for by_hand in (True, False):
            records = Records(Metrics(), level=LogLevel.INFO, as_json=by_hand)
            leave(records, cache, seconds, traced, broken)
        slow, fast = (json.loads(line) for line in errors())
        assert list(fast) == list(slow)
        for line in (fast, slow):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
        assert fast == slow


async def test_what_libraries_tell(errors: Callable[[], list[str]]) -> None:
    """It is told in the form of all lines; of an exception the type and where, not the text."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    set_up_logs(level="info", as_json=True)
    try:
        logging.getLogger("library").warning("what %s\nmore", "happens")
        logging.getLogger("library").info("nothing")
        loop = asyncio.get_running_loop()
        loop.call_soon(json.loads, f"{{{MARK}")
        await asyncio.sleep(0)
    finally:
        root.handlers = handlers
    lines = errors()
    first, second = map(json.loads, lines)
    assert first | {"event": "warned", "library": "library", "detail": "what happens"} == first
    assert (second["event"], second["library"], second["level"]) == ("failed", "asyncio", "error")
    assert second["exception"][0]["exc_type"] == "JSONDecodeError"
    assert MARK not in "".join(lines)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    ("level", "written"),
    [("info", [(200, "info"), (503, "warning")]), ("warning", [(503, "warning")]), ("error", [])],
)
async def test_louder_levels_leave_requests_out(
    errors: Callable[[], list[str]], level: str, written: list[tuple[int, str]], *, as_json: bool
) -> None:
    """Where only warnings are wanted, a request has a line if the service has failed it."""
    set_up_logs(level=level, as_json=True)
    records = Records(Metrics(), level=LogLevel(level), as_json=as_json)
    for status in (200, 503):
        leave(records, status=status)
    lines = [json.loads(line) for line in errors()]
    assert [(line["status"], line["level"]) for line in lines] == written


async def test_a_line_has_its_own_trace(errors: Callable[[], list[str]]) -> None:
    """Lines that are written together, by whichever request was the first, are each of their own.

    Also where structlog writes them, which adds what is bound where it is called.
    """
    set_up_logs(level="info", as_json=True)
    records = Records(Metrics(), level=LogLevel.INFO, as_json=False)
    with structlog.contextvars.bound_contextvars(trace_id="first"):
        for _ in range(2):
            leave(records, flush=False)
    found: list[str] = []
    while len(found) < 2:
        await asyncio.sleep(FLUSH_SECONDS)
        found += errors()
    assert all("trace_id" not in json.loads(line) for line in found)


def leave(
    records: Records,
    cache: str = "",
    seconds: float = 0.1,
    traced: Traced | None = None,
    broken: str = "",
    *,
    status: int = 200,
    flush: bool = True,
) -> None:
    """Leave the record of a request, and have it written."""
    seen = records.seen("GET", "/data/{id}", status, cache, 2, broken)
    records.add((seen, "0af7-65", 0, 3, 1.0, 1.0 + seconds, traced))
    if flush:
        records.flush()


def test_every_line_is_json(client: httpx2.Client, service: Running) -> None:
    """Where no terminal is, each line of the log is an object with event, level and timestamp."""
    canonical(service, client.get("/data"))
    lines = service.log().rpartition("\n")[0].splitlines()
    for line in lines:
        assert {"event", "level", "timestamp"} <= set(json.loads(line)), line


def test_a_refused_request_has_its_line(client: httpx2.Client, service: Running) -> None:
    """What is refused before it is routed is logged like any other, with no SQL."""
    refused = client.get("/data", headers={"Host": "evil.example"})
    line = canonical(service, refused)
    assert (line["status"], line["route"], line["sql"]) == (403, "none", 0)


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/data?limit=1", "/data", 200),
        ("POST", "/data/x", "/data/{id}", 405),
        ("GET", "/nowhere/at/all", "none", 404),
        ("BREW", "/data", "/data", 405),
        ("GET", "/v1/collections/none-such", "/v1/collections/{collection}", 404),
        ("GET", "/health/live", "/health/live", 200),
    ],
)
def test_routes_are_templates(
    client: httpx2.Client, service: Running, method: str, path: str, route: str, status: int
) -> None:
    """The line names the template of the path, so that lines can be counted by it."""
    answer = client.request(method, path)
    line = canonical(service, answer)
    assert (line["route"], line["status"], answer.status_code) == (route, status, status)


@pytest.mark.parametrize(
    "given", ["a", "0af7651916cd43dd8448eb211c80319c", "x" * 128, "A.b_c~+/=-"]
)
def test_a_valid_request_id_is_taken_over(
    client: httpx2.Client, service: Running, given: str
) -> None:
    """The client's id is in the answer, in the log line and in a problem."""
    answer = client.get("/data/none-such", headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] == given
    assert answer.json()["request_id"] == given
    until(lambda: f'"request_id":"{given}"' in service.log(), "no line")


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b'a"b', b"{}", b"a\tb", b"\xc3\xa9"])
def test_another_request_id_is_made(client: httpx2.Client, service: Running, given: bytes) -> None:
    """What is no good as an id is replaced by one that is unique."""
    headers = {b"X-Request-Id": given}
    answers = [client.get("/data", headers=headers) for _ in range(2)]
    made = [answer.headers["x-request-id"] for answer in answers]
    assert all(re.fullmatch(MADE_ID, text) for text in made)
    assert made[0] != made[1]
    until(lambda: f'"request_id":"{made[1]}"' in service.log(), "no line")


def test_a_refused_password_is_not_told(serve: Serve, postgres: Postgres) -> None:
    """The log says that PostgreSQL refuses the user, not with which password; for people too."""
    rules = postgres.folder / "data/pg_hba.conf"
    kept = rules.read_text()
    rules.write_text(f"host all refused 127.0.0.1/32 scram-sha-256\n{kept}")
    try:
        texts = ("CREATE ROLE refused LOGIN PASSWORD 'other'", "SELECT pg_reload_conf()")
        asyncio.run(execute(postgres, "postgres", *texts))
        url = postgres.url.replace("tester@", f"refused:{MARK}@")
        running = serve(database_url=url, wait=False, log_format="console", log_level="debug")
        until(lambda: "waiting for the database" in running.log(), "it does not say so")
        until(lambda: "serving" in running.output.read_text(), "it does not listen")
        address = re.search(r"serving +(\S+)", running.output.read_text())
        assert address
        answer = httpx2.get(f"{address[1]}/data/a")
    finally:
        rules.write_text(kept)
        asyncio.run(execute(postgres, "postgres", "SELECT pg_reload_conf()"))
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert 'password authentication failed for user "refused"' in running.log()
    assert not running.log().startswith("{")
    assert MARK.lower() not in said(running) + answer.text.lower()
