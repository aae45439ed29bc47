"""Speaks to PostgreSQL by psql, and has the limit of imports: COPY of the same text.

It goes into the same table with its indexes. Must not know the service.
"""

import time
from pathlib import Path
from typing import Final

import uuid_utils

from bench.corpus import Corpus
from bench.load import Measured
from bench.processes import run
from credenza.embedded.binaries import MAJOR, installed

COLUMNS: Final = "collection, id, incarnation, version, created_at, updated_at, data"


def psql(url: str, *commands: str) -> str:
    """Run commands in a database by psql, each by itself, and return what they print."""
    program = str(installed() / f"pginstall{MAJOR}/bin/psql")
    options = [part for command in commands for part in ("-c", command)]
    return run(program, "-qAtX", "-v", "ON_ERROR_STOP=1", url, *options)


def make_database(url: str, name: str) -> bool:
    """Make a database on the server of another one; False: it was there."""
    if psql(url, f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
        return False
    psql(url, f"CREATE DATABASE {name}")
    return True


class Copies:
    """Copies the corpus again and again, each time as another collection."""

    def __init__(self, url: str, corpus: Corpus) -> None:
        self._url = url
        self._corpus = corpus
        self._number = 0

    def one_more(self) -> Measured:
        """Copy it once; what is timed is psql alone, with the file as it is on disk."""
        self._number += 1
        file = self._write(f"copied{self._number}")
        begun = time.monotonic()
        psql(self._url, f"\\copy documents ({COLUMNS}) FROM '{file}'")
        seconds = time.monotonic() - begun
        size = self._corpus.values.stat().st_size
        return Measured(self._corpus.documents / seconds, megabytes=size / seconds / 1e6)

    def _write(self, collection: str) -> Path:
        """Write the lines of COPY's text format; JSON of the corpus has nothing to escape in it."""
        file = self._corpus.folder / "copy.tsv"
        now = "2026-01-01 00:00:00+00"
        with file.open("w") as lines:
            lines.writelines(
                f"{collection}\t{uuid_utils.uuid7()}\t1\t1\t{now}\t{now}\t{text}\n"
                for text in self._corpus.texts
            )
        return file
