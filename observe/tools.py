"""Where the tools are that `make observe-tools` has built."""

import os
import re
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
VERSIONS: Final = dict(re.findall(r"^(\w+)=(\S+)$", (HERE / "tools.env").read_text(), re.MULTILINE))
PROGRAMS: Final = {
    "prometheus": "PROMETHEUS",
    "promtool": "PROMETHEUS",
    "alertmanager": "ALERTMANAGER",
    "amtool": "ALERTMANAGER",
    "collector": "COLLECTOR",
    "jaeger": "JAEGER",
    "loki": "LOKI",
}
"""Each program, and what its version is called in tools.env."""


def cache() -> Path:
    """Return the folder that the tools are built into."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "credenza-observe"


def path(program: str) -> Path:
    """Return where a program is, once it is built."""
    return cache() / f"{program}-{VERSIONS[PROGRAMS[program]]}" / program


def missing() -> list[str]:
    """Return the programs that are not there."""
    return [program for program in PROGRAMS if not os.access(path(program), os.X_OK)]
