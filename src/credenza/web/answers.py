"""Answers: a document or a list as a response, with the headers that all of them share.

Must not know where a document came from.
"""

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from credenza import errors, wire
from credenza.values import valid_collection, valid_id
from credenza.web.problems import methods_at, not_allowed

JSON = "application/json"
DEFAULT_COLLECTION = "default"


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
    views = request.query_params.getlist("view") or ["document"]
    if len(views) > 1 or views[0] not in {"document", "data"}:
        raise errors.InvalidQuery("view is document or data, given once.")
    return views[0] == "data"


def wants_minimal(request: Request) -> bool:
    """Return whether the client can do without the document (RFC 7240 §4.2)."""
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return "return=minimal" in [preference.strip().lower() for preference in preferences]


def caching(http_max_age: int | None, *, is_shared: bool) -> str:
    """Return Cache-Control; a shared cache may keep only what everyone may read (RFC 9111 §5.2)."""
    if not http_max_age:
        return "private, no-cache"
    if is_shared:
        return f"public, max-age={http_max_age}, s-maxage={http_max_age}"
    return f"private, max-age={http_max_age}"


def validators(document: wire.StoredDocument) -> dict[str, str]:
    """Return the headers by which a client can ask again."""
    return {"ETag": document.etag, "Last-Modified": document.last_modified}


def written(request: Request, document: wire.StoredDocument, *, location: str | None) -> Response:
    """Answer for a write; `location` where it created the document."""
    headers = validators(document)
    if location is not None:
        headers["Location"] = location
    if wants_minimal(request):
        headers["Preference-Applied"] = "return=minimal"
        return Response(status_code=201 if location else 204, headers=headers)
    return Response(
        document.data if shows_data(request) else document.body,
        status_code=201 if location else 200,
        headers=headers,
        media_type=JSON,
    )


def as_json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with a model."""
    return Response(value.model_dump_json(), status_code=status, headers=headers, media_type=JSON)
