"""Pages of lists as their answers' bytes: what this process holds, else what the database gives.

Must not know HTTP or the store. A page's tag is a hash of the collection's state and of all else
that the answer depends on, so that an equal tag means an equal answer.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from credenza.cache import Cache, Shelf
from credenza.collections import Collections
from credenza.lists import Lists, Page
from credenza.query import Query
from credenza.telemetry import note_cache

FORMAT: Final = "credenza.list.1"
"""Part of every tag; another number where an equal state gives another answer than before."""

TAG_BYTES: Final = 16
TAG_LENGTH: Final = 22
"""Characters of a tag: its bytes in base64url, without padding (RFC 4648 §5)."""

MAX_KEPT_BYTES: Final = 256 * 1024
"""Length of the longest answer that is kept."""

STATE: Final = b""
"""Stands for the address where a collection's state is kept."""

Known: TypeAlias = frozenset[str] | Literal["*"] | None
"""Tags that the client has, `*`: whichever, None: it has none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A list that is asked for, by the address that it is asked for at: path and parameters."""

    collection: str
    address: bytes
    query: Query


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer: its tag, and its bytes with the path of the next page; no body: 304."""

    tag: str
    body: bytes | None = None
    following: str | None = None


Write: TypeAlias = Callable[[Page], tuple[bytes, str | None]]
"""Makes a page into its answer's bytes and the path of the next page."""


class Pages:
    """Answers lists, and knows which of them clients still have."""

    def __init__(self, lists: Lists, collections: Collections, cache: Cache) -> None:
        self._lists = lists
        self._collections = collections
        self._cache = cache

    async def show(self, asked: Asked, known: Known, write: Write) -> Shown:
        """Return the list, or its tag alone where the client knows it.

        What this process holds costs nothing; else a list that did not change is one read of the
        collection's state.
        """
        position, settings = await self._lists.begin(asked.collection, asked.query)
        stamp = f"{FORMAT} {settings} {asked.address.decode('latin-1')}"
        shelf = self._cache.shelf(asked.collection)
        if shelf is not None:
            held = self._cache.kept(shelf, stamp)
            if held is not None:
                note_cache("hit-near", held[1])
                shown: Shown = held[0]
                return Shown(shown.tag) if _is_known(shown.tag, known) else shown
        note_cache("bypass" if shelf is None else "miss")
        if _may_be_known(known):
            state, ttl = await self._state(shelf, asked.collection)
            tag = _tag(stamp, state)
            if _is_known(tag, known):
                if ttl is not None:
                    note_cache("hit-near", ttl)
                return Shown(tag)
        indexes = await self._collections.indexes_for(asked.collection, asked.query)
        page = await self._lists.page(asked.collection, asked.query, position, indexes)
        body, following = write(page)
        shown = Shown(_tag(stamp, page.state), body, following)
        # Who walks through all pages would drive out what many ask for.
        if position is None and len(body) <= MAX_KEPT_BYTES:
            await self._keep(shelf, page.state, (stamp, shown, len(body) + len(stamp)))
        else:
            await self._keep(shelf, page.state)
        return shown

    async def _state(self, shelf: Shelf | None, collection: str) -> tuple[str, float | None]:
        """Return the collection's state, and for how many seconds it is held where it is."""
        if shelf is not None:
            held = self._cache.kept(shelf, STATE)
            if held is not None:
                return held
        state = await self._lists.state(collection)
        await self._keep(shelf, state)
        return state, None

    async def _keep(
        self, shelf: Shelf | None, state: str, page: tuple[str, Shown, int] | None = None
    ) -> None:
        """Keep both for as long as a document of the collection, unless something changes."""
        if shelf is None or not state:
            return
        known = await self._collections.find(shelf.collection)
        if known is None:
            return
        ttl = known.settings.cache_ttl
        self._cache.keep(shelf, STATE, state, len(state), ttl)
        if page is not None:
            self._cache.keep(shelf, *page, ttl)


def _tag(stamp: str, state: str) -> str:
    digest = hashlib.sha256(f"{state}\n{stamp}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:TAG_BYTES]).rstrip(b"=").decode()


def _may_be_known(known: Known) -> bool:
    """Return whether one of the tags has the form of ours."""
    if known is None or known == "*":
        return known is not None
    return any(len(tag) == TAG_LENGTH for tag in known)


def _is_known(tag: str, known: Known) -> bool:
    return known is not None and (known == "*" or tag in known)
