"""The home folder of the embedded PostgreSQL and the lock that makes one process its holder.

Must not know PostgreSQL. The lock is `flock(2)`: the kernel drops it when the holder ends, however
it ends, so that a lock never outlives its process and no pid has to be believed.
"""

import fcntl
import hashlib
import os
import time
from pathlib import Path
from typing import Final

LOCK_SECONDS: Final = 1.0
"""How long a taken lock is tried again: `Home.holder` of another process takes it for a moment."""


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be used; the message says what to do about it."""


class HomeInUse(EmbeddedError):
    """Another process holds the home; the message names its pid and the URL that it serves."""


class Home:
    """The folder of one embedded database, held by this process until `release()` or its end.

    The folder is made (mode 0700) where it is absent. Raises `HomeInUse` where another process
    holds it and `EmbeddedError` where it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.path = _make(path)
            self._lock = _open_lock(self.path)
            self._take()
        except OSError as error:
            raise EmbeddedError(f"the home {path} cannot be used: {error}") from error

    @property
    def data(self) -> Path:
        """The folder of PostgreSQL's data."""
        return self.path / "data"

    @property
    def new_data(self) -> Path:
        """The folder in which the data is made before it gets its name."""
        return self.path / "data.new"

    @property
    def mark(self) -> str:
        """A name that no other home has; each process of its server carries it in its title."""
        return f"credenza-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]}"

    def announce(self, url: str) -> None:
        """Let others learn the URL under which the holder serves."""
        self._write(f"{os.getpid()}\n{url}\n")

    def release(self) -> None:
        """Let another process take the home."""
        self._write("")
        os.close(self._lock)

    def hand_to(self, uid: int, gid: int) -> None:
        """Make another user the owner of the folder and of its lock; only root may."""
        os.chown(self.path, uid, gid)
        os.fchown(self._lock, uid, gid)

    @staticmethod
    def holder(path: Path) -> str | None:
        """Return the URL that the home's holder has announced; None where nobody holds it."""
        try:
            lock = os.open(path / "lock", os.O_RDONLY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise EmbeddedError(f"the home {path} cannot be read: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(lock)[1] or None
        else:
            return None
        finally:
            os.close(lock)

    def _take(self) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _locked(self._lock):
            if time.monotonic() > deadline:
                pid, url = _read(self._lock)
                os.close(self._lock)
                serves = f", which serves {url}" if url else ""
                raise HomeInUse(f"{self.path} is in use by process {pid or 'unknown'}{serves}")
            time.sleep(0.02)
        self._write(f"{os.getpid()}\n")

    def _write(self, text: str) -> None:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, text.encode(), 0)


def _make(path: Path) -> Path:
    """Make the folder where it is absent and return its real path, as processes report theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    return path.resolve(strict=True)


def _open_lock(home: Path) -> int:
    """Open the lock file; it belongs to the home's owner, so that root does not lock them out.

    The descriptor is not inherited (PEP 446): PostgreSQL must not keep the lock of a dead service.
    """
    lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        owner = home.stat()
        os.fchown(lock, owner.st_uid, owner.st_gid)
    return lock


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(lock: int) -> tuple[str, str]:
    """Return the holder's pid and URL; empty where it has not written them yet."""
    pid, _, url = os.pread(lock, 4096, 0).decode(errors="replace").partition("\n")
    return pid, url.strip()
