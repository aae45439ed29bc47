"""The benchmark: its own peer does the work that is compared; no failure passes for a result."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from bench import installed, plot, report, targets
from bench.client import client, walk
from bench.contenders.base import CREDENZA, OWN, POCKETBASE
from bench.contenders.credenza import running
from bench.contenders.own import Own
from bench.contenders.starting import Started
from bench.copying import make_database
from bench.corpus import PAGE, Corpus, ident
from bench.load import Ask, write, wrk
from bench.measuring import measure
from bench.plan import QUICK
from bench.processes import ROOT, served
from bench.workloads import WORKLOADS

from databases import create_migrated
from servers import Postgres, Valkey, free_port

DOCUMENTS = 200
PLAN = replace(QUICK, documents=DOCUMENTS)

Results = dict[str, Any]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A few documents."""
    return Corpus(DOCUMENTS, tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def own(postgres: Postgres, valkey: Valkey, corpus: Corpus) -> Iterator[str]:
    """The peer that one would write, with the corpus; its address."""
    make_database(postgres.url, "bench")
    port = free_port()
    with served(
        *(sys.executable, "-m", "uvicorn", "--factory", "bench.peers.own:create_app"),
        *("--port", str(port), "--log-level", "warning"),
        port=port,
        path="/corpus",
        log=corpus.folder / "log",
        variables={"DATABASE_URL": postgres.database("bench"), "REDIS_URL": valkey.url},
    ) as found:
        with client(found.address) as one:
            headers = {"Content-Type": "application/x-ndjson"}
            one.send(Ask("POST", "/corpus/_import?whole=true", headers), corpus.whole)
        yield found.address


def test_own_peer_does_the_work(own: str, corpus: Corpus, valkey: Valkey) -> None:
    """It stores, reads through its cache, answers 304, and finds what each list asks for."""
    dialect = Own(corpus)
    with httpx2.Client(base_url=own) as http:

        def ask(asked: Ask) -> httpx2.Response:
            return http.request(
                asked.method, asked.path, headers=asked.headers, content=asked.body or None
            )

        first = ask(dialect.read(7))
        assert first.json()["data"] == corpus.value(7)
        assert valkey.stored(f"documents:corpus:{ident(7)}") is not None
        assert ask(dialect.read(7)).content == first.content
        assert ask(dialect.known(own, [7])[0]).status_code == 304

        assert ask(dialect.replace(7, {"n": 7, "team": "t00007"})).json()["version"] == 2
        assert ask(dialect.patch(7, {"team": None, "new": {"a": None}})).status_code == 200
        assert ask(dialect.read(7)).json()["data"] == {"n": 7, "new": {}}
        created = ask(dialect.create('{"n": 1}'))
        assert created.status_code == 201
        assert http.get(created.headers["location"]).json() == created.json()

        equal = ask(dialect.equal(corpus.team(1))).json()["items"]
        assert {item["data"]["n"] % corpus.teams for item in equal} == {1}
        assert len(equal) == PAGE
        between = ask(dialect.between(60, 60 + PAGE)).json()["items"]
        assert sorted(item["data"]["n"] for item in between) == list(range(60, 60 + PAGE))

        assert dialect.take(own).rate > 0
        lines = http.get("/imported1/_export").text.splitlines()
        numbers = sorted(json.loads(line)["n"] for line in lines)
        assert numbers == list(range(DOCUMENTS))
        assert len(ask(dialect.export()).text.splitlines()) == DOCUMENTS


def test_walk_sees_every_document(own: str, corpus: Corpus) -> None:
    """A walk ends with the last page and has met each document once."""
    dialect = Own(corpus)
    seen: list[str] = []

    def paged(answer: Any, body: bytes) -> tuple[int, str | None]:
        seen.extend(item["id"] for item in json.loads(body)["items"])
        number, following = dialect.paged(answer, body)
        return number, following

    walk(own, dialect.first_page(), paged, patience=60)
    assert seen == [ident(number) for number in range(DOCUMENTS)]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk: apt-get install wrk")
def test_failed_request_ends_the_benchmark(own: str, corpus: Corpus, tmp_path: Path) -> None:
    """Under load, one refused request is enough; where refusals are known they do not count."""
    dialect = Own(corpus)
    asks = [dialect.read(1), Ask("GET", "/corpus/nobody", {})]
    with pytest.raises(SystemExit, match=r"requests to http.* have failed"):
        wrk(own, write(asks, tmp_path), 0.3, connections=2)
    measured = wrk(own, write(asks, tmp_path), 0.3, connections=2, tolerant=True)
    assert measured.refused == pytest.approx(0.5, abs=0.1)
    assert wrk(own, write(asks[:1], tmp_path), 0.3, connections=2).refused is None


@pytest.mark.parametrize(("program", "counted"), [("credenza", 1), ("bench.peers.uncounted", 0)])
async def test_requests_are_not_counted(
    postgres: Postgres, tmp_path: Path, program: str, counted: int
) -> None:
    """The service that is measured without the HTTP series answers as ever, and has none."""
    url = postgres.database(await create_migrated(postgres))
    command = (sys.executable, "-m", program)
    with running(tmp_path, "service", program=command, DATABASE_URL=url) as found:
        assert httpx2.get(f"{found.address}/v1/data/nothing").json()["items"] == []
        said = httpx2.get(f"{found.address}/metrics").text
    count = 'http_requests_total{handler="/v1/data/{collection}",method="GET",status="2xx"} 1.0'
    assert said.count(count) == counted


def test_failed_transfer_ends_the_benchmark(own: str) -> None:
    """A client that is refused says what it asked and what came back."""
    with client(own) as one, pytest.raises(SystemExit, match="GET /corpus/nobody gave 404"):
        one.ask(Ask("GET", "/corpus/nobody", {}))


def test_missing_peer_is_named(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that was not installed stands in the table, with what to do about it."""
    monkeypatch.setattr(installed, "FOLDER", tmp_path)
    with pytest.raises(installed.Missing) as reason:
        installed.place("pocketbase")
    workload = replace(WORKLOADS[0], contenders=(CREDENZA, POCKETBASE))
    names = {name: str(reason.value) for name in workload.contenders}
    result = measure(workload, Started(None, {}, names), PLAN)  # type: ignore[arg-type]  # unused
    (line,) = (line for line in report.lines("x", result) if POCKETBASE in line)
    assert line.split(maxsplit=2)[1:] == ["–", "not installed: run make bench-peers"]


def _results(**rates: float) -> Results:
    runs = {name: {"runs": [{"rate": rate, "p99": 1 / rate}]} for name, rate in rates.items()}
    return {"workloads": {targets.CACHED: {"unit": "requests/s", "contenders": runs}}}


@pytest.mark.parametrize(
    ("rate", "outcomes"), [(7.6, ["met", "met"]), (7.4, ["not met", "met"]), (4.9, ["not met"] * 2)]
)
def test_targets_are_judged_unrounded(rate: float, outcomes: list[str]) -> None:
    """What misses a target is not met, however near; what has no value is not measured."""
    found = list(targets.verdicts(_results(credenza=rate, ceiling=10.0)))
    by_ceiling = [verdict.outcome for verdict in found if "÷ ceiling" in verdict.what]
    by_latency = [verdict.outcome for verdict in found if "p99 of ceiling" in verdict.what]
    assert by_ceiling + by_latency == outcomes
    assert {verdict.outcome for verdict in found if "PostgreSQL" in verdict.what} == {
        "not measured"
    }


def test_every_workload_is_compared_with_your_own() -> None:
    """No workload leaves out what one would write oneself."""
    assert all(any(name.startswith(OWN) for name in workload.contenders) for workload in WORKLOADS)


def test_picture_is_of_the_results(tmp_path: Path) -> None:
    """The picture of the page is what the results give, drawn anew."""
    results = json.loads((ROOT / "bench/results.json").read_text())
    plot.draw(results, tmp_path / "new.svg")
    assert (tmp_path / "new.svg").read_text() == (
        ROOT / "docs/reference/performance.svg"
    ).read_text()


def test_each_peer_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    """Where go, uv and npm are missing, each peer is tried all the same, and the status is 1."""
    for name in ("scripts/bench-peers.sh", "bench/peers.env"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "env", "mkdir", "touch"):
        (programs / name).symlink_to(shutil.which(name) or "")
    command = [programs / "bash", tmp_path / "scripts/bench-peers.sh"]
    done = subprocess.run(
        command, env={"PATH": str(programs)}, capture_output=True, check=False, text=True
    )
    named = [line.split()[0] for line in done.stderr.splitlines() if "cannot be installed" in line]
    assert named == ["pocketbase", "kinto", "json-server"]
    assert (done.returncode, done.stdout) == (1, "")
