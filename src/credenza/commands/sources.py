"""Files of JSON as lines: NDJSON or one array, plain or compressed, from disk or standard input.

Lines that are arrays look like one array, so that no content tells which of both a file is.
"""

import gzip
import io
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Final

from credenza import errors
from credenza.splitting import ArrayItems, Lines

PART_BYTES: Final = 256 * 1024
STANDARD: Final = Path("-")
GZIP: Final = b"\x1f\x8b"
"""How what is compressed begins (RFC 1952 §2.3.1), and JSON never."""


_BREAKS = re.compile(rb'("(?:[^"\\]|\\.)*+")|[\r\n]+', re.DOTALL)


class Form(StrEnum):
    """What a file is made of: a value a line, or one array whose items are the values."""

    LINES = "lines"
    ARRAY = "array"


class Unreadable(Exception):
    """A file cannot be read to its end: the system, its compression or its text forbids it."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[io.BufferedIOBase, IO[bytes]]]:
    """Open a file for reading: its content, and the raw file whose position tells the progress."""
    standard = path == STANDARD
    with open(sys.stdin.fileno() if standard else path, "rb", closefd=not standard) as raw:
        if path.suffix != ".gz" and not raw.peek(len(GZIP)).startswith(GZIP):
            yield raw, raw
            return
        with gzip.GzipFile(fileobj=raw) as content:
            yield content, raw


def size(path: Path) -> int | None:
    """Return the bytes of a file; None where nobody knows them."""
    return None if path == STANDARD else path.stat().st_size


def lines(
    path: Path, form: Form | None, *, max_line: int, progress: Callable[[int], None]
) -> Iterator[list[bytes]]:
    """Yield the lines of a file, or the items of its array, each on one line.

    Without a form a `.json` that begins with a bracket is an array, and all else is lines.
    `progress` is told the position in the file. Unreadable comes after all lines before the fault.
    """
    try:
        with opened(path) as (content, raw):
            part = _first(content)
            is_array = (form or _form(path, part)) is Form.ARRAY
            splitter = ArrayItems(max_item=max_line) if is_array else Lines(max_line=max_line)
            while part:
                yield [_on_one_line(item) for item in splitter.feed(part)]
                if path != STANDARD:
                    progress(raw.tell())
                part = content.read1(PART_BYTES)
            yield [_on_one_line(item) for item in splitter.end()]
    except (errors.Problem, OSError, EOFError, zlib.error) as fault:
        raise Unreadable(f"{path}: {fault}") from fault


def _first(content: io.BufferedIOBase) -> bytes:
    """Return the beginning, up to something that is not white space."""
    part = content.read1(PART_BYTES)
    while part and not part.strip():
        more = content.read1(PART_BYTES)
        if not more:
            break
        part += more
    return part


def _form(path: Path, beginning: bytes) -> Form:
    is_json = path.name.lower().removesuffix(".gz").endswith(".json")
    return Form.ARRAY if is_json and beginning.lstrip().startswith(b"[") else Form.LINES


def _on_one_line(item: bytes) -> bytes:
    """Return JSON without line breaks between its tokens; within a string they are not JSON."""
    return _BREAKS.sub(lambda found: found[1] or b" ", item) if b"\n" in item else item


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that gets its name only when it is whole."""
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as raw:
            if path.suffix == ".gz":
                packed = gzip.GzipFile("", "wb", fileobj=raw)
                with io.BufferedWriter(packed) as content:
                    yield content
            else:
                yield raw
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
