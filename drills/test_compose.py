"""Compose: its page followed from top to bottom, then what it promises, on a real engine."""

import json
import re
import shlex
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import httpx2
import pytest
from cluster import wait
from compose import OURS, PATIENCE, ROOT, Stack, composed

from conftest import Measured
from examples import Block, Seen, blocks, commands

PAGE = ROOT / "docs/how-to/compose.md"
FOLLOWED = [block for block in blocks(PAGE.read_text()) if "make drills" in block.reason]
pytestmark = pytest.mark.timeout(900)


class Load:
    """One client that writes and reads while something happens."""

    def __init__(self, stack: Stack) -> None:
        self.stored: dict[str, int] = {}
        self.failed: list[httpx2.Response] = []
        self.broken: list[Exception] = []
        self._client = stack.client()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self.goes_on(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        self._client.close()

    def goes_on(self, number: int) -> None:
        """Wait until so many more writes are acknowledged."""
        expected = len(self.stored) + number
        wait("writes", lambda: len(self.stored) >= expected, seconds=PATIENCE)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.02):
            number += 1
            path = f"/v1/data/load/{time.time_ns()}"
            try:
                answers = (self._client.put(path, json=number), self._client.get(path))
            except httpx2.HTTPError as error:
                self.broken.append(error)
                continue
            if answers[0].is_success:
                self.stored[path] = answers[0].json()["version"]
            self.failed += [
                answer
                for answer in answers
                if not answer.is_success
                and not (answer.status_code == 404 and not answers[0].is_success)
            ]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The system, up as the first commands of the page bring it up; it is gone at the end."""
    with composed(tmp_path_factory.mktemp("compose")) as stack:
        yield stack


def follow(stack: Stack, block: Block, seen: Seen) -> None:
    """Do what a block of the page says and look at what it shows."""
    if block.language == "sh":
        stack.run(block.text)
        return
    for command, shown in commands(block.text):
        output = stack.run(seen.replaced(command)).rstrip("\n") + "\n"
        seen.compare(shown, output)


def test_nothing_starts_without_secrets(stack: Stack) -> None:
    """Each secret that is missing stops Compose by its name, before anything is made."""
    for name in re.findall(r"^(\w+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE):
        others = stack.run(f"grep -oE '^[A-Z_]+=' .env.example | grep -v ^{name}=").split()
        (stack.folder / ".env").write_text("".join(f"{other}1\n" for other in others))
        assert name in stack.run("docker compose up --no-start", status=1)
    (stack.folder / ".env").unlink()
    assert stack.run(f"docker ps --all --quiet --filter {OURS}") == ""


def test_the_page_shows_what_happens(stack: Stack, measured: Measured) -> None:
    """Start, use, back up, restore, upgrade, change secrets, stop: each as the page shows it."""
    seen, seconds = Seen(), []
    assert len(FOLLOWED) == 7
    for block in FOLLOWED:
        if "pg_restore" in block.text:
            spoil(stack)
        began = time.monotonic()
        follow(stack, block, seen)
        seconds.append(time.monotonic() - began)
        if "pg_restore" in block.text:
            assert_restored(stack)
    assert stack.compose("ps", "--all", "--quiet") == ""
    measured(
        "start {:.0f} s, back up {:.1f} s, restore {:.0f} s, change secrets {:.0f} s, "
        "stop {:.0f} s".format(*(seconds[number] for number in (0, 2, 3, 5, 6)))
    )


def spoil(stack: Stack) -> None:
    """Change and add what a restore has to bring back and to forget; the cache knows both."""
    with stack.client() as client:
        client.put("/v1/data/people/ada", json="spoilt").raise_for_status()
        for path in ("/v1/data/people/late", "/v1/data/people/ada"):
            client.put(path, json=1).raise_for_status()
            client.get(path).raise_for_status()


def assert_restored(stack: Stack) -> None:
    """Fail unless what was changed is as it was in the dump, and what was added is gone."""
    with stack.client() as client:
        assert client.get("/v1/data/people/ada").json()["data"] == {"name": "Ada"}
        assert client.get("/v1/data/people/late").status_code == 404


def test_documents_survive_down_and_up(stack: Stack) -> None:
    """The page ended with `down`; after `up` the documents are there, and the new token counts."""
    stack.compose("up", "--wait")
    with stack.client() as client:
        assert client.get("/v1/data/people/ada").json()["data"] == {"name": "Ada"}
        assert httpx2.get(f"{stack.url()}/data").status_code == 401


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    """The same containers run on."""
    before = stack.started()
    assert len(before) == 6
    stack.compose("up", "--wait")
    assert stack.started() == before


def test_it_works(stack: Stack) -> None:
    """A document is stored and read; Prometheus has the service up; the others are well."""
    with stack.client() as client:
        location = client.post("/data", json={"n": 1}).raise_for_status().headers["location"]
        assert client.get(location).json()["data"] == {"n": 1}

    def is_scraped() -> bool:
        query = {"query": 'up{job="credenza"}'}
        answer = httpx2.get(f"{stack.url('PROMETHEUS')}/api/v1/query", params=query).json()
        return [item["value"][1] for item in answer["data"]["result"]] == ["1"]

    wait("Prometheus has the service up", is_scraped, seconds=PATIENCE)
    assert httpx2.get(f"{stack.url('ALERTMANAGER')}/-/ready").is_success
    assert httpx2.get(f"{stack.url('GRAFANA')}/api/health").json()["database"] == "ok"


def test_ports_are_on_loopback(stack: Stack) -> None:
    """The engine has bound what is published to 127.0.0.1, and nothing else."""
    identities = stack.compose("ps", "--quiet").split()
    found = json.loads(stack.run(f"docker inspect {shlex.join(identities)}"))
    bound: list[dict[str, Any]] = [
        binding
        for item in found
        for bindings in item["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert {binding["HostIp"] for binding in bound} == {"127.0.0.1"}
    assert {int(binding["HostPort"]) for binding in bound} == set(stack.ports.values())


def test_only_the_service_reaches_database_and_cache(stack: Stack) -> None:
    """From Prometheus the service has an address; PostgreSQL and Redis have none."""
    ask = "timeout 20 docker compose exec -T prometheus wget -T 5 -O /dev/null http://{} 2>&1"
    stack.run(ask.format("app:8001/metrics"))
    for name in ("postgres:5432", "redis:6379"):
        said = stack.run(f"if {ask.format(name)}; then exit 9; fi")
        assert re.search("unable to resolve|bad address", said), said


def test_redis_restarts_unnoticed(stack: Stack, measured: Measured) -> None:
    """No request fails while Redis restarts, and the cache is used again afterwards."""
    before = stack.started()
    with Load(stack) as load:
        stack.compose("restart", "redis")
        wait("the cache is used again", stack.is_healthy, seconds=PATIENCE)
        load.goes_on(5)
    assert (load.failed, load.broken) == ([], [])
    assert {name for name, found in stack.started().items() if found != before[name]} == {"redis"}
    measured(f"0 of {2 * len(load.stored)} requests failed")


def test_postgres_restarts_without_a_loss(stack: Stack, measured: Measured) -> None:
    """503 with Retry-After meanwhile; then it goes on, with each acknowledged write, by itself."""
    app = stack.started()["app"]
    with Load(stack) as load:
        stack.compose("restart", "postgres")
        wait("recovery", stack.is_healthy, seconds=PATIENCE)
        load.goes_on(5)
    assert load.broken == []
    assert {answer.status_code for answer in load.failed} == {503}
    assert all("retry-after" in answer.headers for answer in load.failed)
    with stack.client() as client:
        found = {path: client.get(path).json()["version"] for path in load.stored}
    assert found == load.stored
    assert stack.started()["app"] == app
    measured(f"{len(load.stored)} writes acknowledged, {len(load.failed)} requests answered 503")
