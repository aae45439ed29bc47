"""The fields of a request's head (RFC 9110 §5), in one dictionary.

Starlette's headers search a list each time, and most endpoints look for six or more.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias, cast

from fastapi import Request
from starlette.types import Scope

MAX_DIGITS: Final = 19
"""Of a length; a number of more is more than any limit, and Python reads only some thousands."""

Fields: TypeAlias = dict[bytes, bytes]
"""Values by name in lower case."""


def read(lines: Sequence[tuple[bytes, bytes]]) -> Fields:
    """Return the fields of a head; several lines of one name are one value (§5.3)."""
    fields = dict(lines)
    if len(fields) < len(lines):
        for name in fields:
            fields[name] = b", ".join(value for key, value in lines if key == name)
    return fields


def text(fields: Fields, name: bytes) -> str | None:
    """Return a value as text; bytes beyond ASCII are taken for Latin-1 (§5.5)."""
    value = fields.get(name)
    return None if value is None else value.decode("latin-1")


def length(fields: Fields) -> int:
    """Return Content-Length (RFC 9110 §8.6), at the most 19 digits of it; 0 where there is none."""
    value = fields.get(b"content-length")
    return int(value.lstrip(b"0")[:MAX_DIGITS] or b"0") if value and value.isdigit() else 0


def keep(scope: Scope, fields: Fields, request_id: str) -> None:
    """Leave what is known of a request to its endpoint."""
    scope["state"] = {"request_id": request_id, "fields": fields}


def fields_of(request: Request) -> Fields:
    """Return the fields of a request that `keep` has left."""
    return cast("Fields", request.scope["state"]["fields"])
