"""The operating system's user that PostgreSQL runs as, and how programs run as that user.

Must not know what is run. PostgreSQL refuses to run as root (manual, 18.1), so that root hands it
to the home's owner or to the system user `credenza`.
"""

import asyncio
import math
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from credenza.embedded.home import EmbeddedError, Home

SYSTEM_USER: Final = "credenza"
ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""All that programs see: no secret of the service, no PGPORT, messages in one language."""

_FIRST_CLOSED: Final = 'for path; do test -x "$path" || { printf %s "$path"; exit; }; done'


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system."""

    uid: int
    gid: int
    name: str

    @property
    def is_self(self) -> bool:
        """Whether this process runs as that user."""
        return self.uid == os.geteuid()

    def own(self, path: Path) -> None:
        """Make this user the owner of a path that root has made; a link is not followed."""
        if not self.is_self:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def launch(
        self, command: Sequence[str | Path], *, cwd: Path, output: int | IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """Start a program as this user, in its own session: Ctrl-C in a terminal is not for it."""
        return subprocess.Popen(  # noqa: S603 - the wheel's programs, with our arguments
            command,
            cwd=cwd,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=None if self.is_self else self.uid,
            group=None if self.is_self else self.gid,
            extra_groups=None if self.is_self else [],
        )

    async def run(self, command: Sequence[str | Path], *, cwd: Path) -> None:
        """Run a program to its end; raises `EmbeddedError` with its last lines where it fails."""
        with tempfile.TemporaryFile() as output:
            process = self.launch(command, cwd=cwd, output=output)
            try:
                await ended(process)
            finally:
                process.kill()
                process.wait()
            if process.returncode:
                output.seek(0)
                lines = output.read().decode(errors="replace").strip().splitlines()[-10:]
                raise EmbeddedError("\n".join((f"{Path(command[0]).name} failed:", *lines)))

    def first_closed(self, paths: Sequence[Path]) -> Path | None:
        """Return the first of the paths that this user may not enter or execute.

        The user itself is asked: mode bits alone do not tell (access lists, capabilities).
        """
        if self.is_self:
            return None
        with tempfile.TemporaryFile() as output:
            command: list[str | Path] = ["/bin/sh", "-c", _FIRST_CLOSED, "sh", *paths]
            self.launch(command, cwd=Path("/"), output=output).wait()
            output.seek(0)
            closed = os.fsdecode(output.read())
        return Path(closed) if closed else None


async def ended(process: subprocess.Popen[bytes], *, within: float = math.inf) -> bool:
    """Return whether the process has ended `within` seconds, and as soon as it has."""
    deadline = time.monotonic() + within
    while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.01)
    return process.returncode is not None


def account_for(home: Home) -> Account:
    """Return the user that PostgreSQL of this home runs as.

    It is the user of this process; for root it is the home's owner, and the system user where root
    owns the home. An empty home of root is handed to the system user.
    """
    if os.geteuid() != 0:
        return this_account()
    owner = home.path.stat().st_uid
    if owner != 0:
        return _reaching(home, _account(owner))
    account = _system_account()
    if {path.name for path in home.path.iterdir()} <= {"lock"}:
        home.hand_to(account.uid, account.gid)
    return _reaching(home, account)


def this_account() -> Account:
    """Return the user that this process runs as."""
    return _account(os.geteuid())


def _account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedError(
            f"user id {uid} has no name on this system, which PostgreSQL needs: add it to "
            "/etc/passwd, run as another user, or set DATABASE_URL"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def _system_account() -> Account:
    """Return the system user, made where it is absent."""
    try:
        return _account(pwd.getpwnam(SYSTEM_USER).pw_uid)
    except KeyError:
        reason = _make_system_user()
    try:
        return _account(pwd.getpwnam(SYSTEM_USER).pw_uid)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL does not run as root and the system user {SYSTEM_USER} cannot be made "
            f"({reason}): make it, make another user the owner of CREDENZA_HOME, or set "
            "DATABASE_URL"
        ) from None


def _make_system_user() -> str:
    """Make the system user and return what the program says; another may have been faster."""
    program = shutil.which("useradd", path=f"{os.defpath}:/usr/sbin:/sbin")
    if program is None:
        return "there is no useradd"
    options = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    done = subprocess.run(  # noqa: S603 - a fixed command
        [program, *options, "--home-dir", "/nonexistent", SYSTEM_USER],
        capture_output=True,
        check=False,
    )
    return done.stderr.decode(errors="replace").strip()


def _reaching(home: Home, account: Account) -> Account:
    """Return the account if it can reach the home; parents are never changed for it."""
    closed = account.first_closed([*reversed(home.path.parents), home.path])
    if closed is not None:
        raise EmbeddedError(
            f"PostgreSQL runs as the user {account.name}, who may not enter {closed}: "
            f"set CREDENZA_HOME to a folder elsewhere (root's default is /var/lib/credenza), or "
            f"allow it with `chmod o+x {closed}`"
        )
    return account
