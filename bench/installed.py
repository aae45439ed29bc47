"""Where `make bench-peers` has put the peers, and which versions. Must not know how they run."""

from pathlib import Path
from typing import Final

from bench.processes import ROOT

FOLDER: Final = ROOT / ".tools/bench"
VERSIONS: Final = Path(__file__).parent / "peers.env"


class Missing(Exception):
    """A peer is not there; the text says what to do."""


def version(peer: str) -> str:
    """Return the version in which a peer is measured; its name is that of its folder."""
    wanted = peer.upper().replace("-", "_")
    lines = [line.partition("=") for line in VERSIONS.read_text().splitlines()]
    return next(value for name, _, value in lines if name == wanted)


def place(peer: str) -> Path:
    """Return the folder of a peer; Missing where it was not installed."""
    folder = FOLDER / f"{peer}-{version(peer)}"
    if not (folder / ".ready").exists():
        raise Missing("not installed: run make bench-peers")
    return folder
