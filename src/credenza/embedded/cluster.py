"""The data folder and what the server needs beside it: who may connect, and where the socket is.

Must not know a running server.
"""

import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from credenza.embedded.account import Account, this_account
from credenza.embedded.binaries import MAJOR
from credenza.embedded.home import EmbeddedError, Home

ROLE: Final = "credenza"
"""The name of the database, of its owner, and of the map from users of the system to it."""

PORT: Final = 5432
"""A part of the socket's name; nothing listens on TCP."""

SOCKET_PATH_BYTES: Final = 103
"""What unix(7) and its like leave for a path: 107 on Linux, 103 on macOS."""

_PLAIN_PATH: Final = re.compile(r"/[\w/.+-]*", re.ASCII)
"""Paths that neither PostgreSQL's nor a driver's lists of hosts take apart."""

_OPTIONS: Final = (
    *("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"),
    *(f"--username={ROLE}", "--auth-local=peer", "--auth-host=reject", "--no-instructions"),
)


async def make_data(
    home: Home, account: Account, programs: Path, progress: Callable[[str], None]
) -> None:
    """Make the data folder where it is absent; refuse one of another major version.

    It is made under another name and renamed when it is whole and on disk, so that an end in the
    middle leaves only what the next start removes.
    """
    if _exists(home.data):
        return
    progress(f"Making a database in {home.path}")
    shutil.rmtree(home.new_data, ignore_errors=True)
    home.new_data.mkdir(mode=0o700)
    account.own(home.new_data)
    command: list[str | Path] = [programs / "initdb", "--pgdata", home.new_data, *_OPTIONS]
    await account.run(command, cwd=home.new_data)
    home.new_data.rename(home.data)
    for folder in (home.path, home.path.parent):
        _sync(folder)


def _exists(data: Path) -> bool:
    """Return whether there is data of this major version."""
    try:
        version = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        if data.is_dir() and any(data.iterdir()):
            raise EmbeddedError(
                f"{data} is not PostgreSQL's: it has no PG_VERSION; set CREDENZA_HOME to a folder "
                "of its own, or move it away"
            ) from None
        return False
    if version != MAJOR:
        raise EmbeddedError(
            f"{data} was made by PostgreSQL {version} and this is PostgreSQL {MAJOR}: dump it with "
            f"version {version} and restore it into a new home, or upgrade it with pg_upgrade"
        )
    return True


def _sync(folder: Path) -> None:
    """Put the names in the folder on disk, see fsync(2), where this user may read it."""
    if not os.access(folder, os.R_OK):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_access(home: Home, account: Account) -> dict[str, str]:
    """Write who may connect and return the settings that name the files.

    PostgreSQL asks the kernel who the client is (peer, manual 20.9) and lets in this process's user
    and its own; the socket's folder is closed to all others as well.
    """
    hba = "".join(f"local {what} {ROLE} peer map={ROLE}\n" for what in ("all", "replication"))
    names = sorted({account.name, this_account().name})
    ident = "".join(f'{ROLE} "{name}" {ROLE}\n' for name in names)
    files = {"hba_file": home.path / "pg_hba.conf", "ident_file": home.path / "pg_ident.conf"}
    for path, text in zip(files.values(), (hba, ident), strict=True):
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with new.open("x") as file:
            file.write(text)
        account.own(new)
        new.replace(path)
    return {name: str(path) for name, path in files.items()}


def socket_folder(home: Home, account: Account) -> Path:
    """Return the folder of the socket, private to the server's user and empty.

    It is in the home, or in /tmp where the home's path is too long for a socket or has characters
    that drivers take apart. The lock file of a dead server beside the socket is dropped with it.
    """
    folder = home.path / "socket"
    length = len(os.fsencode(folder / f".s.PGSQL.{PORT}"))
    if length > SOCKET_PATH_BYTES or not _PLAIN_PATH.fullmatch(str(folder)):
        folder = Path(f"/tmp/{home.mark}-{account.uid}")  # noqa: S108 - checked below
    if not os.path.lexists(folder):
        folder.mkdir(mode=0o700)
        account.own(folder)
    _refuse_open(folder, account)
    for path in folder.iterdir():
        path.unlink()
    return folder


def _refuse_open(folder: Path, account: Account) -> None:
    """Refuse a folder in which others could put a socket of their own."""
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if not private or found.st_uid != account.uid:
        raise EmbeddedError(
            f"{folder} must be a folder of mode 0700 that {account.name} owns: remove it"
        )
