"""PostgreSQL's log file, which never grows without bound.

Must not know what is in it. The server appends to the file itself, because a pipe would break with
the service; whoever holds the home cuts it, because `logging_collector` bounds time, not bytes.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from credenza.embedded.account import Account

LOG_BYTES: Final = 10 * 1024 * 1024
"""Bytes after which the log becomes the old log; so the two take about twice as much."""
TAIL_BYTES: Final = 4096
TAIL_LINES: Final = 10


class Log:
    """The log of one server, from its start on."""

    def __init__(self, path: Path, account: Account) -> None:
        self._path = path
        os.close(self.open())
        account.own(path)
        self.cut()
        self._begin = path.stat().st_size

    def open(self) -> int:
        """Return a descriptor that appends; a link is refused, root would follow it anywhere."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)

    def tail(self) -> list[str]:
        """Return the last lines that were written since the start."""
        with os.fdopen(self.open(), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(self._begin, size), size - TAIL_BYTES))
            return file.read().decode(errors="replace").strip().splitlines()[-TAIL_LINES:]

    def cut(self) -> None:
        """Move the log aside where it has become too long; what cannot be moved is dropped."""
        if self._path.stat().st_size <= LOG_BYTES:
            return
        old = self._path.with_name(f"{self._path.name}.1")
        with os.fdopen(self.open(), "rb+") as file:
            with suppress(OSError):  # a full disk is a reason to cut the log, not to keep it
                old.unlink(missing_ok=True)
                with old.open("xb") as copy:
                    shutil.copyfileobj(file, copy)
            file.truncate(0)
        self._begin = 0
