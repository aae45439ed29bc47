"""Answers: a document or a list as a response, with the headers that all of them share.

Must not know where a document came from.
"""

import re
from functools import lru_cache
from typing import Any, Final

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from credenza import errors, wire
from credenza.values import valid_collection, valid_id
from credenza.web.fields import fields_of, text
from credenza.web.problems import methods_at, not_allowed

JSON = "application/json"
JSON_TYPE = (b"content-type", b"application/json")

Headers = list[tuple[bytes, bytes]]
DEFAULT_COLLECTION = "default"

_PREFERENCES: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*+")++')
_RETURN: Final = re.compile(r'\s*return\s*(?:=\s*"?([^"\s;]*)"?\s*)?(?:;.*)?', re.IGNORECASE)
"""Of a header Prefer what stands between commas, and the one about the answer (RFC 7240 §2)."""

MAX_REMEMBERED: Final = 1_000
"""Headers that are remembered."""


def collection_of(request: Request) -> str:
    """Return the collection that the path names; below `/data` it is the default one."""
    name: str = request.path_params.get("collection", DEFAULT_COLLECTION)
    if not valid_collection(name):
        raise errors.InvalidId(f"{name!r} is not a collection's name.")
    return name


def id_of(request: Request) -> str:
    """Return the id that the path names."""
    id_: str = request.path_params["id"]
    if id_.startswith("_") and (methods := methods_at(request)):
        raise not_allowed(methods)
    if not valid_id(id_):
        raise errors.InvalidId(f"{id_!r} is not a document's id.")
    return id_


def shows_data(request: Request) -> bool:
    """Return whether bare values are asked for (`view=data`)."""
    if not request.scope["query_string"]:
        return False
    views = request.query_params.getlist("view") or ["document"]
    if len(views) > 1 or views[0] not in {"document", "data"}:
        raise errors.InvalidQuery("view is document or data, given once.")
    return views[0] == "data"


def wants_minimal(request: Request) -> bool:
    """Return whether the client can do without the document (RFC 7240 §4.2); the first counts."""
    for preference in _PREFERENCES.findall(text(fields_of(request), b"prefer") or ""):
        if found := _RETURN.fullmatch(preference):
            return found[1] is not None and found[1].lower() == "minimal"
    return False


@lru_cache(MAX_REMEMBERED)
def caching(http_max_age: int | None, *, is_shared: bool) -> tuple[bytes, bytes]:
    """Return Cache-Control; a shared cache may keep only what everyone may read (RFC 9111 §5.2)."""
    value = "private, no-cache"
    if http_max_age and is_shared:
        value = f"public, max-age={http_max_age}, s-maxage={http_max_age}"
    elif http_max_age:
        value = f"private, max-age={http_max_age}"
    return b"cache-control", value.encode()


class Answer(Response):
    """A response that is put together from bytes, for what is asked for most.

    Starlette's own takes longer to encode its headers than a document takes to be checked.
    """

    def __init__(self, status: int, headers: Headers, body: bytes | None = None) -> None:
        """`body` is JSON; None: there is none, nor are there headers about it."""
        self.status_code, self.background, self.body = status, None, body or b""
        self.raw_headers = headers
        if body is not None:
            headers += ((b"content-length", b"%d" % len(body)), JSON_TYPE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def validators(document: wire.StoredDocument) -> Headers:
    """Return the headers by which a client can ask again."""
    return [
        (b"etag", b'"%d"' % document.version),
        (b"last-modified", document.last_modified.encode()),
    ]


def written(request: Request, document: wire.StoredDocument, *, location: str | None) -> Response:
    """Answer for a write; `location` where it created the document."""
    headers = validators(document)
    if location is not None:
        headers.append((b"location", location.encode()))
    if wants_minimal(request):
        headers.append((b"preference-applied", b"return=minimal"))
        if location is None:
            return Answer(204, headers)
        return Answer(201, [*headers, (b"content-length", b"0")])
    body = document.data if shows_data(request) else document.body
    return Answer(201 if location else 200, headers, body)


def as_json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with a model."""
    return Response(value.model_dump_json(), status_code=status, headers=headers, media_type=JSON)
