"""Dashboards are what the deployed Grafana reads: each field, type and word is one of its schema.

tests/dashboard_types.ts puts the types of npm's @grafana/schema together; TypeScript compares.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from grafana import DASHBOARDS, image_version

HERE = Path(__file__).parent
COMPILER = HERE / "node_modules/typescript/bin/tsc"
SCHEMA = HERE / "node_modules/@grafana/schema/package.json"
OPTIONS = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext")
FREE = re.compile(r"/(include|exclude|index|rename)ByName/.|/mappings/\d/options/\w+$")
"""Names that are no fields: those of columns, and the numbers that words stand for."""

Step = str | int


@pytest.fixture(autouse=True)
def npm() -> None:
    """`make test` installs what it needs."""
    if not COMPILER.exists():
        pytest.skip("needs npm's typescript and @grafana/schema: apt-get install npm")


def faults(folder: Path, boards: list[dict[str, Any]]) -> dict[int, str]:
    """Return what TypeScript says of the first fault of each dashboard that has any."""
    source = folder / "boards.ts"
    lines = [f"export const board{at}: Board = {json.dumps(x)};" for at, x in enumerate(boards)]
    types = (HERE / "dashboard_types").as_posix()
    source.write_text("\n".join([f"import type {{ Board }} from '{types}';", *lines]))
    command = [str(COMPILER), *OPTIONS, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    said = re.findall(r"^\S*boards\.ts\((\d+),\d+\): (.*)$", done.stdout, re.MULTILINE)
    assert (done.returncode == 0) == (not said), done.stdout + done.stderr
    return {int(line) - 2: text for line, text in reversed(said)}


def test_dashboards_are_what_grafana_reads(tmp_path: Path) -> None:
    """Nothing is misspelt, of another type, or a word that Grafana does not know."""
    found = faults(tmp_path, list(DASHBOARDS.values()))
    assert {list(DASHBOARDS)[at]: text for at, text in found.items()} == {}


def test_the_schema_is_that_of_the_deployed_version() -> None:
    """The types are of the version of the image."""
    assert json.loads(SCHEMA.read_text())["version"] == image_version()


def test_each_misspelt_field_is_seen(tmp_path: Path) -> None:
    """Whichever field of a dashboard has another name or type, TypeScript refuses it."""
    broken: dict[str, dict[str, Any]] = {}
    for board in DASHBOARDS.values():
        for panel in board["panels"]:
            alone = board | {"panels": [panel]}
            for path in steps(alone):
                name = f"{panel['type']} {shape(path)}" if path[0] == "panels" else shape(path)
                broken.setdefault(f"name of {name}", renamed(alone, path))
                broken.setdefault(f"type of {name}", retyped(alone, path))
    tried = {name: made for name, made in broken.items() if made}
    found = faults(tmp_path, list(tried.values()))
    assert len(tried) > 400
    assert {name for at, name in enumerate(tried) if at not in found} == set()


def steps(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Yield the path of each field of objects."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for step, item in items:
        if isinstance(value, dict):
            yield (*path, step)
        if isinstance(item, dict | list):
            yield from steps(item, (*path, step))


def shape(path: tuple[Step, ...]) -> str:
    """Return a path without places in lists."""
    return "/".join(step for step in path if isinstance(step, str))


def renamed(board: dict[str, Any], path: tuple[Step, ...]) -> dict[str, Any]:
    """Return the dashboard with a field of another name; nothing where each name is right."""
    if FREE.search("/" + "/".join(map(str, path))):
        return {}
    made = deepcopy(board)
    parent = _parent(made, path)
    parent[f"{path[-1]}x"] = parent.pop(path[-1])
    return made


def retyped(board: dict[str, Any], path: tuple[Step, ...]) -> dict[str, Any]:
    """Return the dashboard with a field of another type."""
    made = deepcopy(board)
    parent = _parent(made, path)
    parent[path[-1]] = 1 if isinstance(parent[path[-1]], str) else "word"
    return made


def _parent(value: Any, path: tuple[Step, ...]) -> Any:
    for step in path[:-1]:
        value = value[step]
    return value
