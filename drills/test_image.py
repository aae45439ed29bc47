"""The image: what is in it and what is not, and that it runs as a cluster runs it. Needs Docker.

The drill builds it as CI does, by `.ci/image`, on the `python:3.11-slim` that this machine has.
"""

import json
import re
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

import credenza

ROOT = Path(__file__).parent.parent
BASE = "python:3.11-slim"
POSTGRES = "postgres:18"
NAME = "credenza:drill"
BUDGET = 100_000_000
DRAIN_SECONDS = 2
PATIENCE = 120.0

TOOLS = re.compile(
    r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|clang|tcc|ld|ld\.bfd|ld\.gold|as|ar|strip|objcopy|make|cmake"
    r"|rustc|cargo|go|uv|uvx)(-\d+(\.\d+)?)?"
)
"""Programs that build or install: none is in what runs, beside the pip of the base."""

CACHES = re.compile(
    r"(var/lib/apt/lists|var/cache/apt/archives)/(?!lock$|partial/?$).+|(.*/)?\.cache/.+"
    r"|(.*/)?__pycache__/.*\.pyc\.\d+"
)
HARDENED = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)

Measured = Callable[[str], None]

pytestmark = pytest.mark.timeout(600)


def docker(*arguments: str, status: int = 0) -> str:
    """Run Docker's client and return what it writes."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == status, done.stdout + done.stderr
    return (done.stdout + done.stderr).strip()


def inspect(name: str) -> dict[str, Any]:
    """Return all that Docker knows of an image or a container."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", name))
    return found[0]


def size(image: str) -> int:
    """Return the bytes of all layers of an image, unpacked."""
    shown = docker("history", "--human=false", "--format={{.Size}}", image)
    return sum(map(int, shown.split()))


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def built() -> str:
    """What the build said, once the image is there."""
    command = ["bash", "-c", f"PYTHON_IMAGE={BASE} .ci/image {NAME}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=550
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def config(built: str) -> dict[str, Any]:
    """How a container of the image is started."""
    assert built
    found: dict[str, Any] = inspect(NAME)["Config"]
    return found


@pytest.fixture(scope="module")
def files(built: str) -> set[str]:
    """The paths of all files and links of the image."""
    assert built
    container = docker("create", NAME)
    try:
        export = subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE)
        with export, tarfile.open(fileobj=export.stdout, mode="r|") as archive:
            return {member.name for member in archive if not member.isdir()}
    finally:
        docker("rm", container)


def test_layers_are_small(built: str, measured: Measured) -> None:
    """Our layers add at most 100 MB to the base, and the build has said how many."""
    ours = size(NAME) - size(BASE)
    measured(f"{ours / 1_000_000:.0f} MB on a base of {size(BASE) / 1_000_000:.0f} MB (stand-ins)")
    assert 0 < ours <= BUDGET
    assert f"Our layers add {ours // 1_000_000} MB" in built
    base, whole = (inspect(name)["RootFS"]["Layers"] for name in (BASE, NAME))
    assert whole[: len(base)] == base


def test_there_is_nothing_to_build_with(files: set[str]) -> None:
    """No compiler, linker or installer is there; the service is, and PostgreSQL is not."""
    programs = {path for path in files if re.search(r"(^|/)s?bin/[^/]+$", path)}
    assert "opt/service/bin/credenza" in programs
    found = {path for path in programs if TOOLS.fullmatch(path.rpartition("/")[2])}
    assert found == set()
    assert [path for path in files if path.startswith("opt/") and "pgserver" in path] == []


def test_no_cache_is_left(files: set[str]) -> None:
    """Neither apt nor pip nor uv has left what it had fetched."""
    assert {path for path in files if CACHES.fullmatch(path)} == set()


def test_user_is_a_number(config: dict[str, Any]) -> None:
    """The image's user is one that the kubelet can tell from root, and its processes have it."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    script = "import os; print(os.getuid(), os.getgid())"
    shown = docker("run", "--rm", "--entrypoint=python3", NAME, "-c", script)
    assert shown == config["User"].replace(":", " ")


def test_entry_point_needs_no_shell(config: dict[str, Any]) -> None:
    """Signals reach the service: the entry point is the program itself."""
    assert (config["Entrypoint"], config["Cmd"]) == (["credenza"], ["serve"])
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][0] == "CMD"


def test_labels_say_what_it_is(config: dict[str, Any]) -> None:
    """The labels name the service, its version and the commit that it was built from."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    prefix = "org.opencontainers.image."
    found = {name.removeprefix(prefix): value for name, value in config["Labels"].items()}
    assert found.pop("description")
    assert found == {
        "title": "Credenza",
        "licenses": "MIT",
        "version": credenza.__version__,
        "revision": commit,
    }


@pytest.mark.parametrize("options", [(), HARDENED], ids=["as it is", "read-only"])
def test_it_says_that_it_needs_a_database(config: dict[str, Any], options: tuple[str, ...]) -> None:
    """Without DATABASE_URL it ends at once, in one line that says what to set."""
    assert config
    (line,) = docker("run", "--rm", *options, "--env=AUTH=off", NAME, status=1).splitlines()
    assert "DATABASE_URL" in line
    assert "not installed" in line


@dataclass
class Service:
    """A container of the image beside a PostgreSQL."""

    name: str
    url: str

    def health(self) -> str:
        """Return what Docker thinks of it."""
        found: str = inspect(self.name)["State"]["Health"]["Status"]
        return found


@pytest.fixture
def service(config: dict[str, Any]) -> Iterator[Service]:
    """The service, as a cluster hardens it, with a PostgreSQL that a first container migrates."""
    assert config
    mark = f"credenza-drill-{uuid.uuid4().hex[:8]}"
    database, migration, name = f"{mark}-postgres", f"{mark}-migrate", f"{mark}-app"
    url = f"postgresql://devops:drill@{database}:5432/credenza"
    docker("network", "create", mark)
    try:
        variables = {"USER": "devops", "PASSWORD": "drill", "DB": "credenza"}
        given = [f"--env=POSTGRES_{key}={value}" for key, value in variables.items()]
        docker("run", "--detach", f"--name={database}", f"--network={mark}", *given, POSTGRES)
        ask = ("exec", database, "pg_isready", "-U", "devops", "-h", "127.0.0.1")
        until(lambda: _succeeds(*ask), "PostgreSQL does not come up")
        common = [f"--network={mark}", *HARDENED, f"--env=DATABASE_URL={url}", "--env=AUTH=off"]
        docker("run", f"--name={migration}", *common, NAME, "migrate")
        drain = f"--env=DRAIN_SECONDS={DRAIN_SECONDS}"
        listen = "--publish=127.0.0.1::8000"
        docker("run", "--detach", f"--name={name}", listen, drain, *common, NAME)
        (port,) = inspect(name)["NetworkSettings"]["Ports"]["8000/tcp"]
        yield Service(name, f"http://127.0.0.1:{port['HostPort']}")
    finally:
        for each in (name, migration, database):
            _succeeds("rm", "--force", "--volumes", each)
        docker("network", "rm", mark)


def _succeeds(*arguments: str) -> bool:
    done = subprocess.run(["docker", *arguments], capture_output=True, check=False, timeout=60)
    return done.returncode == 0


def test_it_serves_and_stops(service: Service, measured: Measured) -> None:
    """It turns healthy on a read-only root, keeps documents, and ends with 0 within the drain."""
    until(lambda: service.health() == "healthy", "it does not turn healthy")
    with httpx2.Client(base_url=service.url, timeout=30) as client:
        made = client.post("/data", json={"name": "drill"})
        assert made.status_code == 201, made.text
        assert "drill" in client.get("/data").text
    began = time.monotonic()
    docker("stop", "--time=45", service.name)
    took = time.monotonic() - began
    measured(f"stopped in {took:.1f} s, of which {DRAIN_SECONDS} s are the drain")
    assert inspect(service.name)["State"]["ExitCode"] == 0
    assert took < DRAIN_SECONDS + 20, "the drain, and what it gives to requests under way"


def test_it_is_unhealthy_without_its_database(service: Service) -> None:
    """The image's own health check follows the database: away it is unhealthy, then well again."""
    until(lambda: service.health() == "healthy", "it does not turn healthy")
    database = service.name.replace("-app", "-postgres")
    docker("stop", database)
    until(lambda: service.health() == "unhealthy", "it does not notice")
    docker("start", database)
    until(lambda: service.health() == "healthy", "it does not recover")
