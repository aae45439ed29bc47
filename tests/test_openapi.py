"""The OpenAPI document: valid, true of the service, and shown without the internet."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from conftest import Serve
from credenza import __version__, errors
from service import Running

METHODS = {"get", "head", "post", "put", "patch", "delete"}
CHROMIUM = shutil.which("chromium")

HOOKS = '''
"""What no schema can say, for the generator of requests."""
import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def as_line(context, value):
    """Write a value as a line."""
    return json.dumps(value).encode() + b"\\n"


@schemathesis.hook
def before_load_schema(context, raw):
    """Leave cursors out: they are signed, so that none can be made up."""
    for item in raw["paths"].values():
        for operation in item.values():
            named = operation.get("parameters", [])
            operation["parameters"] = [each for each in named if each["name"] != "cursor"]


@schemathesis.hook
def filter_case(context, case):
    """Sort by a field once only, with whichever direction."""
    fields = (case.query or {}).get("order") or ()
    fields = fields.split(",") if isinstance(fields, str) else fields
    names = [str(field).removesuffix(".asc").removesuffix(".desc") for field in fields]
    return len(set(names)) == len(names)
'''

CONFIGURATION = """
# U+0000 is JSON that jsonb cannot hold: 422, tested with other bad input.
[generation]
allow-x00 = false

# What depends on what is stored: 404 and 409 are allowed for by themselves, preconditions not.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "428"]
[checks.missing_required_header]
expected-statuses = ["428"]

# A line's form depends on the view, and whether its id exists.
[[operations]]
include-path-regex = "/_import$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "422"]
"""


@pytest.fixture
def document(client: httpx2.Client) -> dict[str, Any]:
    """The document as it is served."""
    answer = client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def parts(value: Any, name: str) -> list[Any]:
    """Return what all members of a name have, at any depth."""
    if isinstance(value, list):
        return [found for item in value for found in parts(item, name)]
    if not isinstance(value, dict):
        return []
    own = [value[name]] if name in value else []
    return own + [found for item in value.values() for found in parts(item, name)]


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return path, method and operation of each."""
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    """OpenAPI 3.1's own rules: its members, methods, unique ids, path parameters, references."""
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["version"] == __version__
    assert set(document) <= {"openapi", "info", "paths", "components", "security"}
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for path, method, operation in operations(document):
        assert method in METHODS, (path, method)
        assert operation["summary"]
        assert operation["responses"], (path, method)
        given = [(each["name"], each["in"]) for each in operation.get("parameters", [])]
        assert len(given) == len(set(given)), (path, method)
        in_path = {name for name, place in given if place == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path)), (path, method)
        for answer in operation["responses"].values():
            assert answer["description"], (path, method)
    for reference in parts(document, "$ref"):
        kind, name = re.fullmatch(r"#/components/(\w+)/(\w+)", reference).groups()  # type: ignore[union-attr]
        assert name in document["components"][kind], reference


def test_its_schemas_are_json_schema(document: dict[str, Any]) -> None:
    """Each schema, of parameters, bodies and components, is valid JSON Schema 2020-12."""
    schemas = [*parts(document, "schema"), *document["components"]["schemas"].values()]
    assert len(schemas) > 100
    for schema in schemas:
        jsonschema_rs.meta.validate(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        )


def test_it_has_every_route(document: dict[str, Any], client: httpx2.Client) -> None:
    """What a path answers 405 to is not in the document, and what it allows is.

    But for HEAD, which goes without saying where there is GET (RFC 9110 §9.1).
    """
    pages = {"/metrics", "/openapi.json", "/docs", "/redoc"}
    for path, item in document["paths"].items():
        concrete = path.format(collection="c", id="a")
        allowed = client.request("BREW", concrete).headers["allow"].split(", ")
        assert {name.lower() for name in allowed} - {"head"} == set(item) - {"head"}, path
    assert not pages & set(document["paths"])


def test_every_failure_is_documented(document: dict[str, Any]) -> None:
    """Each code of the closed list stands with an operation under its status, as problem+json."""
    said = {
        (int(status), answer["description"])
        for _, _, operation in operations(document)
        for status, answer in operation["responses"].items()
    }
    unsaid = {errors.Internal, errors.MethodNotAllowed}  # faults, and what is in no operation
    for problem in set(errors.ALL) - unsaid:
        assert any(
            status == problem.status and f"{problem.code}." in description
            for status, description in said
        ), problem.code


@pytest.mark.timeout(300)
def test_the_service_does_what_the_document_says(serve: Serve, folder: Path) -> None:
    """Schemathesis, all checks: examples, coverage, fuzzing and links find nothing, and no 5xx."""
    (folder / "hooks.py").write_text(HOOKS)
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    running = serve()
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"{running.url}/openapi.json",
            *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
            *("--max-examples", "5", "--seed", "4711", "--no-color", "--continue-on-failure"),
        ],
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    generated = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert generated, done.stdout[-2000:]
    assert generated[1] == generated[2]
    assert int(generated[1]) > 1000
    assert [line for line in running.log_lines() if line.get("status", 0) >= 500] == []


def hosts(text: str) -> set[str]:
    """Return the hosts from which a page takes scripts, styles, images and data."""
    taken = re.findall(r'(?:src|href)="?(?:https?:)?//([^/"\s>]+)', text)
    return set(taken) | set(re.findall(r"url\(['\"]?(?:https?:)?//([^/'\")]+)", text))


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_take_everything_from_here(client: httpx2.Client, path: str) -> None:
    """The HTML names no other host, and each asset that it names is served."""
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert hosts(page.text) == set()
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(assets) >= 2
    for asset in assets:
        assert client.get(asset).status_code == 200, asset


@pytest.mark.parametrize(
    ("path", "marks"),
    [
        ("/docs", ["opblock-summary", "Create a document", "/v1/collections/{collection}"]),
        ("/redoc", ["operation/", "Create a document", "/v1/collections/{collection}"]),
    ],
)
def test_pages_work_without_the_internet(
    service: Running, folder: Path, path: str, marks: list[str]
) -> None:
    """A browser that can reach no other host shows the operations."""
    if CHROMIUM is None:
        pytest.skip("needs a browser: apt-get install chromium")
    dom, log = rendered(f"{service.url}{path}", folder)
    for mark in marks:
        assert mark in dom, (mark, dom[-2000:], log[-2000:])


def rendered(url: str, folder: Path) -> tuple[str, str]:
    """Return a page as the browser has built it, and what the browser says."""
    assert CHROMIUM is not None
    switches = (
        "headless no-sandbox disable-gpu disable-background-networking disable-component-update"
        " disable-sync no-first-run disable-dev-shm-usage disable-extensions dump-dom"
        " virtual-time-budget=20000"
    )
    browser = subprocess.Popen(
        [
            *(CHROMIUM, *(f"--{switch}" for switch in switches.split())),
            f"--user-data-dir={folder / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            url,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        return browser.communicate(timeout=90)
    finally:
        if browser.poll() is None:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
