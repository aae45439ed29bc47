"""Cuts streams of JSON into values in bounded memory; must not know what a value may be.

Bytes are pushed in as they arrive, however they are cut, and what is complete comes out. Each byte
is looked at a fixed number of times.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator

from credenza import errors

_SPACE = b" \t\r\n"


class _Splitter(ABC):
    """What comes before a fault is handed out; the fault is raised by the call after that."""

    def __init__(self) -> None:
        self._fault: errors.Problem | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return what they complete."""
        return self._collect(self._split(chunk))

    def end(self) -> list[bytes]:
        """Return what the end of the stream completes."""
        return self._collect(self._finish())

    def _collect(self, pieces: Iterator[bytes]) -> list[bytes]:
        if self._fault:
            raise self._fault
        complete: list[bytes] = []
        try:
            complete.extend(pieces)  # keeps what came before a fault
        except errors.Problem as fault:
            self._fault = fault
            if not complete:
                raise
        return complete

    @abstractmethod
    def _split(self, chunk: bytes) -> Iterator[bytes]: ...

    @abstractmethod
    def _finish(self) -> Iterator[bytes]: ...


class Lines(_Splitter):
    r"""Cuts a stream into its lines, ended by \n or \r\n, which are not part of them.

    A blank line comes out as b"", so that counting what comes out, from 1, numbers the lines.
    PayloadTooLarge, with its number as the member `line`, for a line of more than `max_line` bytes.
    """

    def __init__(self, *, max_line: int) -> None:
        super().__init__()
        self._max_line = max_line
        self._number = 1
        self._line = bytearray()

    def _split(self, chunk: bytes) -> Iterator[bytes]:
        first, *others = chunk.split(b"\n")
        self._add(first)
        if not others:
            return
        yield self._take()
        for line in others[:-1]:
            yield self._ended(line)
        self._add(others[-1])

    def _finish(self) -> Iterator[bytes]:
        if self._line:
            yield self._take()

    def _add(self, piece: bytes) -> None:
        self._line += piece
        self._limit(len(self._line) - self._line.endswith(b"\r"))

    def _take(self) -> bytes:
        line = bytes(self._line)
        self._line.clear()
        return self._ended(line)

    def _ended(self, line: bytes) -> bytes:
        line = line.removesuffix(b"\r")
        self._limit(len(line))
        self._number += 1
        return line if line.strip(_SPACE) else b""

    def _limit(self, length: int) -> None:
        if length > self._max_line:
            raise errors.PayloadTooLarge(
                f"Line {self._number} has more than {self._max_line:,} bytes.", line=self._number
            )


_IN_STRING = re.compile(rb'["\\]')
_BETWEEN_ITEMS = re.compile(rb'["\[\]{},]')
_WITHIN_ITEM = re.compile(rb'["\[\]{}]')


class ArrayItems(_Splitter):
    """Cuts the text of one JSON array into the texts of its items, without white space around.

    Text that is not one array is refused here (MalformedJson) or has an item that is no JSON:
    items are not validated. PayloadTooLarge, with its number (from 1) as the member `line`, for an
    item of more than `max_item` bytes, counting white space between it and the comma.
    """

    def __init__(self, *, max_item: int) -> None:
        super().__init__()
        self._max_item = max_item
        self._number = 1
        self._item = bytearray()
        self._depth = 0  # of containers within the item
        self._in_string = False
        self._skip = 0  # bytes of the next chunk that an escape covers
        self._opened = False
        self._closed = False

    def _split(self, chunk: bytes) -> Iterator[bytes]:
        start = 0 if self._opened else self._open(chunk)
        at = start + self._skip
        while not self._closed and (found := self._marks().search(chunk, at)):
            mark, at = found[0], found.end()
            if not self._depth and mark in b",]":
                self._add(chunk[start : at - 1])
                start = at
                yield from self._take(last=mark == b"]")
            elif mark == b"\\":
                at += 1
            else:
                self._pass(mark, chunk[start : at - 1])
        self._skip = max(at - len(chunk), 0)
        self._keep(chunk[start:])

    def _finish(self) -> Iterator[bytes]:
        if not self._closed:
            raise errors.MalformedJson("The array ends early.")
        yield from ()

    def _open(self, chunk: bytes) -> int:
        """Return the place after the bracket that opens the array, or after the chunk."""
        text = chunk.lstrip(_SPACE)
        if text and not text.startswith(b"["):
            raise errors.MalformedJson("Expected an array.")
        self._opened = bool(text)
        return len(chunk) - len(text[1:])

    def _marks(self) -> re.Pattern[bytes]:
        if self._in_string:
            return _IN_STRING
        return _WITHIN_ITEM if self._depth else _BETWEEN_ITEMS

    def _pass(self, mark: bytes, before: bytes) -> None:
        """Go past a quote or a bracket; `before` is what the chunk has of its item before it."""
        if self._in_string:
            self._in_string = False
            return
        if mark in b"]}":
            self._depth -= 1
        elif not self._depth and (self._item or before.strip(_SPACE)):
            raise errors.MalformedJson(f"A comma is missing after item {self._number}.")
        else:
            self._in_string = mark == b'"'
            self._depth += mark != b'"'
        if self._depth < 0:
            raise errors.MalformedJson(f"A bracket is out of place in item {self._number}.")

    def _keep(self, rest: bytes) -> None:
        if not self._closed:
            self._add(rest)
        elif rest.strip(_SPACE):
            raise errors.MalformedJson("There is text after the array.")

    def _add(self, piece: bytes) -> None:
        self._item += piece if self._item else piece.lstrip(_SPACE)
        if len(self._item) > self._max_item:
            raise errors.PayloadTooLarge(
                f"Item {self._number} has more than {self._max_item:,} bytes.", line=self._number
            )

    def _take(self, *, last: bool) -> Iterator[bytes]:
        item = bytes(self._item).rstrip(_SPACE)
        self._item.clear()
        self._closed = last
        if item:
            _refuse_several(item, self._number)
            self._number += 1
            yield item
        elif self._number > 1 or not last:
            raise errors.MalformedJson(f"Item {self._number} is missing.")


def _refuse_several(item: bytes, number: int) -> None:
    """Refuse values with no comma between them, as far as brackets and quotes do not show it."""
    bounded = item[0] in b'[{"'
    if not (item.endswith((b"]", b"}", b'"')) if bounded else len(item.split()) == 1):
        raise errors.MalformedJson(f"A comma is missing after item {number}.")
