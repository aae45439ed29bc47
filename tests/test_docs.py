"""The documentation: what it shows is what happens, what there is stands in it, and links lead on.

Each page is followed from top to bottom as a reader would follow it, on a real service.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest

import credenza
from conftest import WHEEL, Serve
from credenza import errors
from credenza.cli import app
from credenza.settings import Settings
from examples import RUN, Block, Reader, blocks
from servers import PgBouncer, Postgres, Valkey, until
from service import Running

PROGRAMS = WHEEL / "pginstall18/bin"
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
FOLLOWED = [
    name
    for name, text in TEXTS.items()
    if any(block.language in RUN and not block.reason for block in blocks(text))
]
HISTORY = ROOT / "CHANGELOG.md"

LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
TEST = re.compile(r"\btests/(?P<file>\w+\.py)(?:::(?P<name>\w+))?")
PATH = re.compile(
    r"(?<![\w./:-])"
    r"(?:argocd|bench|charts|docs|drills|k8s|monitoring|observe|scripts|secrets|src|tests)"
    r"/[\w./*{},-]*[\w/*}]"
)
ELSEWHERE = {
    "src/rsgi/io.rs",  # Granian's
    "secrets/alertmanager/SLACK_API_URL",  # what a reader makes, from here on
    "k8s/overlays/staging/sealed-secrets.yaml",
    "k8s/overlays/staging/sealing-certificate.pem",
    "k8s/overlays/staging/secrets.sops.yaml",
}
"""Paths that pages name and that are not in the repository."""

DECISION = ("## The choice", "## The price", "## What would change it")

Follow = Callable[[str], Reader]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service that `make run` without settings stands for."""
    folder = tmp_path_factory.mktemp("service")
    for parent in (folder, *folder.parents[:3]):
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    running = Running(folder, credenza_home=folder / "home").start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def follow(
    request: pytest.FixtureRequest,
    shared: Running,
    serve: Serve,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Follow:
    """Return a reader of a page, with what the page says is there, and nothing that is not."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl: apt-get install curl")

    def begin(text: str) -> Reader:
        _empty(shared)
        cars = ROOT / "tests/node_modules/vega-datasets/data/cars.json"
        if "cars.json" in text:
            if not cars.exists():
                pytest.skip("needs npm's vega-datasets: apt-get install npm, then make test")
            shutil.copy(cars, folder)
        places = {".venv/bin/credenza": "credenza"}
        if "pooler.example.com" in text:
            places |= _pooled(request.getfixturevalue("pgbouncer"))
            database = request.getfixturevalue("debian")
        elif "db.example.com" in text:
            database = request.getfixturevalue("postgres")
        if "db.example.com" in text:
            places |= _database(database, text)
            monkeypatch.setenv("PATH", str(PROGRAMS), prepend=":")
        if "redis.example.com" in text:
            valkey: Valkey = request.getfixturevalue("valkey")
            places["redis.example.com:6379"] = f"127.0.0.1:{valkey.port}"
        return Reader(folder, shared, serve, places)

    return begin


def _empty(service: Running) -> None:
    """Delete what an earlier page has stored."""
    with service.client() as client:
        for collection in client.get("/v1/collections?limit=1000").json()["items"]:
            path = f"/v1/collections/{collection['name']}"
            assert client.delete(path, headers={"If-Match": "*"}).status_code == 204


def _database(server: Postgres, text: str) -> dict[str, str]:
    """Make the role and the database of the pages, but for the page that makes them itself."""
    _sql(server, "DROP DATABASE IF EXISTS credenza WITH (FORCE)", "DROP ROLE IF EXISTS credenza")
    if "CREATE DATABASE credenza" not in text:
        _sql(server, "CREATE ROLE credenza LOGIN", "CREATE DATABASE credenza OWNER credenza")
    return {
        "postgres@db.example.com:5432": f"tester@127.0.0.1:{server.port}",
        "db.example.com:5432": f"127.0.0.1:{server.port}",
    }


def _sql(server: Postgres, *statements: str) -> None:
    until(lambda: "ready to accept connections" in server.log(), "PostgreSQL")
    for statement in statements:
        subprocess.run([PROGRAMS / "psql", "-qc", statement, server.url], check=True)


def _pooled(pooler: PgBouncer) -> dict[str, str]:
    return {"credenza:secret@pooler.example.com:6432": f"tester@127.0.0.1:{pooler.port}"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", FOLLOWED)
def test_pages_show_what_happens(page: str, follow: Follow) -> None:
    """Each example of a page runs, in the order of the page, and shows what the page shows."""
    reader = follow(TEXTS[page])
    for block in blocks(TEXTS[page]):
        if block.language in RUN and not block.reason:
            _do(reader, block, page)


def _do(reader: Reader, block: Block, page: str) -> None:
    try:
        reader.follow(block)
    except AssertionError as error:
        raise AssertionError(f"{page}, line {block.line}: {error}") from None


@pytest.mark.parametrize("page", TEXTS)
def test_examples_run_or_say_why_not(page: str) -> None:
    """A block that is not run says why, in at least some words; JSON is JSON."""
    found = list(blocks(TEXTS[page]))
    assert TEXTS[page].count("```") == 2 * len(found), "a fence is not closed or not understood"
    for block in found:
        if block.language == "json":
            json.loads(block.text)
        elif block.reason:
            assert len(block.reason.split()) > 2, f"line {block.line}: that is no reason"
        else:
            assert block.language in RUN, f"line {block.line}: it is not run and does not say why"


def test_reference_is_what_the_code_says() -> None:
    """What `docs/generate.py` makes is what is there."""
    assert _generate("--check") == (0, "")


def test_generator_names_what_differs(tmp_path: Path) -> None:
    """A page that was changed by hand, or is not there, is named."""
    shutil.copytree(ROOT / "docs/reference", tmp_path, dirs_exist_ok=True)
    changed, gone = tmp_path / "settings.md", tmp_path / "errors.md"
    changed.write_text(changed.read_text().replace("`HOST`", "`GUEST`"))
    gone.unlink()
    status, said = _generate("--check", "--folder", str(tmp_path))
    assert status == 1
    assert said.splitlines() == [
        f"{page} is not what the code says: run `make docs`" for page in (changed, gone)
    ]


def _generate(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "docs/generate.py"), *arguments]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    return done.returncode, done.stderr


def test_reference_has_every_setting_error_and_command() -> None:
    """What a reader can set, meet or call is in the reference by its name."""
    expected = {
        "settings": {f"`{name.upper()}`" for name in Settings.model_fields},
        "errors": {f"`{problem.code}`" for problem in errors.ALL},
        "commands": {
            f"$ credenza {name} --help" for name in app if app[name].show and name[0] != "-"
        },
    }
    missing = {
        name
        for page, names in expected.items()
        for name in names
        if name not in TEXTS[f"docs/reference/{page}.md"]
    }
    assert missing == set()


def test_reference_lists_what_a_setting_may_be() -> None:
    """A setting that takes one of a few words has all of them in its column."""
    words = {
        name.upper(): [word.value for word in kind]
        for name, field in Settings.model_fields.items()
        for kind in (field.annotation, *get_args(field.annotation))
        if isinstance(kind, type) and issubclass(kind, StrEnum)
    }
    assert {"AUTH", "LOG_FORMAT", "OTEL_TRACES_SAMPLER"} <= words.keys()
    rows = re.findall(r"(?m)^\| `(\w+)` \| (.*?) \|", TEXTS["docs/reference/settings.md"])
    taken = {name: re.findall(r"`(\w+)`", text) for name, text in rows if name in words}
    assert taken == words


def test_reference_has_every_metric(shared: Running) -> None:
    """Each series that a service shows is in the reference."""
    with shared.client() as client:
        client.get("/data")
        shown = client.get("/metrics").text
    names = set(re.findall(r"(?m)^# TYPE (\S+)(?<!_created) ", shown))
    assert "http_requests_total" in names
    page = TEXTS["docs/reference/metrics.md"]
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_reference_has_every_operation(shared: Running) -> None:
    """Each method of each path of the OpenAPI document is in the page on the HTTP API."""
    with shared.client() as client:
        paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    page = TEXTS["docs/reference/http-api.md"]
    missing = {
        (method, path)
        for path, methods in paths.items()
        for method in map(str.upper, methods)
        if not re.search(rf"(?m)^\|.*\b{method}\b.* \| `{re.escape(path)}`", page)
    }
    assert missing == set()


def test_links_lead_somewhere() -> None:
    """Each link within the repository leads to a file and, with a fragment, to a heading in it."""
    for page, text in TEXTS.items():
        for link in LINK.finditer(text):
            target, _, fragment = link["target"].partition("#")
            if ":" in target:
                continue
            path = (ROOT / page).parent / target if target else ROOT / page
            assert path.exists(), f"{page}: {link['target']}"
            if fragment:
                assert fragment in _anchors(path.read_text()), f"{page}: {link['target']}"


def _anchors(text: str) -> set[str]:
    """Return the fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_found_from_the_readme() -> None:
    """Who follows links from the README reaches each page."""
    reached: set[str] = set()
    waiting = ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page not in TEXTS:
            continue
        reached.add(page)
        waiting += [
            str(((ROOT / page).parent / link["target"].split("#")[0]).resolve().relative_to(ROOT))
            for link in LINK.finditer(TEXTS[page])
            if ":" not in link["target"]
        ]
    assert set(TEXTS) - reached == set()


@pytest.mark.parametrize("page", TEXTS)
def test_named_tests_exist(page: str) -> None:
    """A test that a page names as a proof is there."""
    for found in TEST.finditer(TEXTS[page]):
        path = ROOT / "tests" / found["file"]
        assert path.exists(), found[0]
        if found["name"]:
            assert re.search(rf"^(async )?def {found['name']}\(", path.read_text(), re.MULTILINE), (
                found[0]
            )


@pytest.mark.parametrize("page", TEXTS)
def test_named_paths_exist(page: str) -> None:
    """A file or folder that a page names is there; `*` stands for some, braces for each."""
    named = {path for found in PATH.findall(TEXTS[page]) for path in _each(found)}
    assert {path for path in named - ELSEWHERE if not any(ROOT.glob(path))} == set()


def _each(path: str) -> Iterator[str]:
    """Yield the paths that one with `{a,b}` stands for."""
    before, brace, rest = path.partition("{")
    words, _, after = rest.partition("}")
    if brace:
        for word in words.split(","):
            yield from _each(f"{before}{word}{after}")
    else:
        yield path


def test_paths_elsewhere_are_named() -> None:
    """No exception is left of a path that no page names any more."""
    assert {path for path in ELSEWHERE if not any(path in text for text in TEXTS.values())} == set()


@pytest.mark.parametrize("page", [page for page in TEXTS if "/decisions/" in page])
def test_decisions_have_a_price(page: str) -> None:
    """A decision says what was chosen, what it costs and what would change it, on one page."""
    assert [part for part in DECISION if f"\n{part}\n" not in TEXTS[page]] == []
    assert TEXTS[page].count("\n") < 80


def test_history_begins_with_this_version() -> None:
    """The newest entry of the changelog is the version that the code names."""
    versions = re.findall(r"^## (\S+)", HISTORY.read_text(), re.MULTILINE)
    assert versions[0] == credenza.__version__
