"""Fixtures of the drills, and the report that they write."""

import json
import re
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from cluster import Cluster, deploy, run

REPORT: Final = Path(__file__).parent / "report.md"
API: Final = "http://127.0.0.1:30080"
ROW: Final = re.compile(r"^\| `(?P<drill>[^`]+)` \|.*$", re.MULTILINE)
HEAD: Final = """<!-- Written by `make drills`: each drill replaces its own row. -->

# What the drills have shown

Each row is a drill: a test in this folder, run against a real cluster by `make drills`, or alone by
`make drills ARGS="drills/FILE::NAME"`. Figures are of the run that the last columns name.

| drill | promise | measured | result | where | date, commit |
|---|---|---|---|---|---|
"""

PROMETHEUS: Final = "http://127.0.0.1:30090"

Measured = Callable[[str], None]
Metrics = Callable[[str], float]

_figures: dict[str, str] = {}
_rows: dict[str, str] = {}


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Tell the report what a drill has measured."""

    def note(figures: str) -> None:
        _figures[request.node.nodeid] = figures

    return note


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster with this commit's image and the development environment in it."""
    deploy()
    return Cluster()


@pytest.fixture(scope="session")
def metrics(cluster: Cluster) -> Metrics:
    """Ask the cluster's Prometheus: the sum of what an expression gives."""

    def ask(expression: str) -> float:
        address = f"{PROMETHEUS}/api/v1/query?" + urlencode({"query": expression})
        with urlopen(address, timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
        return sum(float(sample["value"][1]) for sample in found)

    return ask


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a row for a drill that has ended."""
    report = yield
    if report.when == "call" and isinstance(item, pytest.Function):
        promise = (item.function.__doc__ or "").split("\n")[0]
        verdict = "shown" if report.passed else "**not shown**"
        name = item.nodeid.removeprefix("drills/")
        cells = (promise, _figures.get(item.nodeid, ""), verdict, _where(item), _when())
        _rows[name] = f"| `{name}` | " + " | ".join(cells) + " |"
    return report


def pytest_sessionfinish() -> None:
    """Write the report: the rows of this run, and of drills that it left out."""
    if not _rows:
        return
    old = REPORT.read_text() if REPORT.exists() else ""
    rows = {found["drill"]: found[0] for found in ROW.finditer(old)} | _rows
    REPORT.write_text(HEAD + "".join(f"{rows[name]}\n" for name in sorted(rows)))


def _where(item: pytest.Function) -> str:
    if "cluster" not in item.fixturenames:
        return "Docker " + run("docker", "version", "--format", "{{.Server.Version}}").strip()
    version = json.loads(run("kubectl", "get", "--raw", "/version"))["gitVersion"]
    nodes = len(Cluster().get("nodes")["items"])
    return f"Kubernetes {version}, {nodes} nodes"


def _when() -> str:
    commit = run("git", "rev-parse", "--short", "HEAD").strip()
    changed = (
        "+" if run("git", "status", "--porcelain", "--", "src", "k8s", "charts").strip() else ""
    )
    return f"{datetime.now(UTC):%Y-%m-%d}, {commit}{changed}"
