"""What is cached and under which key, and how both are written in Redis."""

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

FORMAT: Final = 1
"""Part of every name in Redis; another number where what is stored there changes its form."""

PREFIX: Final = f"credenza:{FORMAT}:"
CHANNEL: Final = f"{PREFIX}_changes"
GENERATION: Final = f"{PREFIX}_generation"
"""No collection's name begins with an underscore, so these two are nobody's key."""

WHOLE: Final = "_whole"
"""Stands for the id where a message is about a collection as a whole; no document is called so."""


class Key(NamedTuple):
    """A document of one incarnation of its collection."""

    collection: str
    incarnation: int
    id: str

    @property
    def text(self) -> str:
        """Its name in Redis; no part has a colon or a space."""
        return f"{PREFIX}{self.collection}:{self.incarnation}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key of that name."""
        collection, incarnation, id_ = text.removeprefix(PREFIX).split(":")
        return cls(collection, int(incarnation), id_)


def whole(collection: str) -> Key:
    """Return the key that stands for all that is made of a whole collection."""
    return Key(collection, 0, WHOLE)


@dataclass(slots=True)
class Entry:
    """A version and its bytes; None: at that version there is nothing.

    This process holds it until the moment `until` (monotonic; 0: not, or not any more). `note` is
    what a reader has made of it, to be used again as long as it is held, and dropped with it.
    `asked` tells that somebody has asked for it since it came to its place among the others.
    """

    version: int
    body: bytes | None
    until: float = field(default=0.0, compare=False)
    asked: bool = field(default=False, compare=False, repr=False)
    note: Any = field(default=None, compare=False, repr=False)

    def pack(self, key: Key, generation: str) -> bytes:
        r"""Return what Redis stores: `E<generation> <version> <id>`, then \n and the bytes."""
        head = f"E{generation} {self.version} {key.id}".encode()
        return head if self.body is None else head + b"\n" + self.body

    @classmethod
    def unpack(cls, stored: bytes, key: Key) -> Self | None:
        """Return the entry; None where it is not this key's."""
        head, has_body, body = stored.partition(b"\n")
        _, version, id_ = head.split(b" ")
        return cls(int(version), body if has_body else None) if id_ == key.id.encode() else None
