"""Starts what is measured, waits until it answers, and ends it. Must not know what it is."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

ROOT: Final = Path(__file__).parent.parent
START_SECONDS: Final = 60.0
END_SECONDS: Final = 60.0


@contextlib.contextmanager
def served(*command: str, port: int, path: str, log: Path, **variables: str) -> Iterator[str]:
    """Run a server, give its address once it answers there, and end it afterwards.

    It gets no variables of the environment but these and what every program needs.
    """
    address = f"http://127.0.0.1:{port}"
    environment = {name: os.environ[name] for name in ("PATH", "HOME")} | variables
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out) as process,
    ):
        try:
            _wait(process, address + path, log)
            yield address
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            process.kill()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(URLError, OSError), urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"bench: {url} does not answer\n{log.read_text()[-2000:]}")
