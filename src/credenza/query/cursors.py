"""Cursors: the place where a page ended, signed, so that only the service can say it.

Must not know SQL. A cursor is bound to its collection, filter and order; `limit`, `select` and
`view` may change from page to page.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from itsdangerous import BadData, URLSafeSerializer

from credenza import errors
from credenza.query.tree import Position, Query

FORMAT: Final = "credenza.cursor.1"
"""Part of every key; another number makes all cursors void, where positions change their form."""

MAX_SERIALIZERS: Final = 100
"""Queries whose pages follow each other."""


class Cursors:
    """Signs with the first of its keys and verifies with all."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(reversed(keys))
        self.name = hashlib.sha256(f"{FORMAT}.name.{keys[0]}".encode()).hexdigest()
        """Names the key that signs, without telling it."""

    def write(self, query: Query, collection: str, position: Sequence[str]) -> str:
        """Return the text of a position."""
        return str(self._serializer(query, collection).dumps(list(position)))

    def read(self, query: Query, collection: str) -> Position | None:
        """Return the position of the query's cursor, None without one.

        CursorMismatch for a cursor that was changed or belongs to another query.
        """
        if query.cursor is None:
            return None
        try:
            return tuple(self._serializer(query, collection).loads(query.cursor))
        except BadData:
            raise errors.CursorMismatch from None

    def _serializer(self, query: Query, collection: str) -> URLSafeSerializer:
        """Return what signs for one query alone: the query goes into the key, not into the text."""
        bound_to = repr((collection, query.filter, query.order)).encode()
        return _serializer(self._keys, f"{FORMAT}.{hashlib.sha256(bound_to).hexdigest()}")


@lru_cache(MAX_SERIALIZERS)
def _serializer(keys: tuple[str, ...], salt: str) -> URLSafeSerializer:
    return URLSafeSerializer(
        list(keys),
        salt=salt,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
