"""The house: imports point down only, never sideways, and each kind of thing has one home."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import credenza

ROOT = Path(credenza.__file__).parent

FLOORS = (
    ("cgroups", "forms", "logs"),
    ("sql", "errors", "settings", "tallies", "processes", "lifecycle", "patience", "samples"),
    ("telemetry", "tracing", "exposition"),
    ("spans",),
    ("records", "values", "splitting", "conditions", "groups", "slots", "writes", "wire"),
    ("query", "database", "rows", "cache", "embedded"),
    ("batches", "collection", "locks"),
    ("store", "bulk", "snapshots"),
    ("collections", "lists"),
    ("exports", "grouped", "indexing", "pages", "transfer"),
    ("documents",),
    ("upkeep", "web"),
    ("app",),
    ("serving", "supervisor"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A module of the same floor is only imported within its own package."""

KNOW_STORE_AND_CACHE = {"collections", "grouped", "documents", "transfer", "app"}

STORES = {"batches", "bulk", "snapshots", "store"}

MAX_LINES = 350


def modules() -> Iterator[tuple[str, Path]]:
    """Yield each module's dotted name below the package, and its file."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",) and "migrations" not in parts:
            yield ".".join(part for part in parts if part != "__init__"), path


MODULES = dict(modules())


def imports(path: Path) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each import of our own modules: the statement and the module's name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("credenza"):
            base = (node.module or "").removeprefix("credenza").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                name = inner if inner in MODULES else base
                if name:
                    yield node, name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("credenza."):
                    yield node, alias.name.removeprefix("credenza.")


def floor(module: str) -> int:
    """Return the floor of a module; each has to be named in FLOORS."""
    room = module.split(".", maxsplit=1)[0]
    found = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    assert len(found) == 1, f"{room} is not on a floor, or on several: name it in FLOORS"
    return found[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """A module imports from floors below its own, or from its own package."""
    for _, imported in imports(MODULES[module]):
        same_room = imported.split(".")[0] == module.split(".", maxsplit=1)[0]
        assert same_room or floor(imported) < floor(module), f"{module} imports {imported}"


def test_there_are_no_cycles() -> None:
    """Also within a package, modules can be put into an order."""
    graph = {
        module: {
            name
            for _, name in imports(path)
            # A package's own modules do not count as importing what re-exports them.
            if name != module and not module.startswith(f"{name}.")
        }
        for module, path in MODULES.items()
    }
    assert set(TopologicalSorter(graph).static_order()) >= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_at_the_top(module: str) -> None:
    """No function imports anything: what a module needs is seen in its first lines."""
    tree = ast.parse(MODULES[module].read_text())
    inner = [
        node.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert inner == []


def test_few_know_store_and_cache() -> None:
    """Coherence is kept where both meet: in few modules, and where everything is built."""
    rooms = {
        module: {name.split(".")[0] for _, name in imports(path)}
        for module, path in MODULES.items()
    }
    meeting = {module for module, used in rooms.items() if "cache" in used and used & STORES}
    assert meeting == KNOW_STORE_AND_CACHE


def test_the_web_knows_neither_store_nor_cache_nor_sql() -> None:
    """HTTP reaches documents only through the modules that keep them coherent."""
    for module, path in MODULES.items():
        if module.split(".")[0] == "web":
            rooms = {name.split(".")[0] for _, name in imports(path)}
            assert not rooms & {*STORES, "cache", "sql", "database", "embedded"}, module


HOMES = {
    "os.environ": {"supervisor", "upkeep"},
    "asyncpg": {
        "database",
        "batches",
        "store",
        "bulk",
        "snapshots",
        "embedded",
        "commands",
    },
    "pydantic_settings": {"settings"},
    "redis": {"cache"},
    "sqlalchemy": {"commands"},
    "alembic": {"commands"},
    "fastapi": {"web", "app"},
    "opentelemetry": {"spans"},
    "prometheus_client": {
        "tallies",
        "processes",
        "telemetry",
        "exposition",
        "supervisor",
        "cache",
    },
}
"""What reaches out of the house, and the rooms with a door there.

Of our modules `settings` alone reads the environment, through pydantic-settings; `supervisor`
and `upkeep` hand it on, unread, to processes that they start.
"""


@pytest.mark.parametrize("library", HOMES)
def test_each_library_has_its_rooms(library: str) -> None:
    """A library is used where HOMES says, and nowhere else."""
    users = {module.split(".")[0] for module, path in MODULES.items() if library in used(path)}
    assert users == HOMES[library]


def used(path: Path) -> set[str]:
    """Return the top names of the libraries that a file imports, and `os.environ` where it is."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ":
            found.add("os.environ")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_what_they_are_in_charge_of(module: str) -> None:
    """Each begins with a docstring that is more than a name, and is short enough to be read."""
    text = MODULES[module].read_text()
    assert len(ast.get_docstring(ast.parse(text)) or "") > len("One short line")
    assert text.count("\n") <= MAX_LINES, f"{module} is too long"
