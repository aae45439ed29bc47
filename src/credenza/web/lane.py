"""The lane: requests about documents reach their endpoint without the router.

Pure ASGI, in front of FastAPI, which stays the truth: the lane calls the endpoints of its routes,
and answers a document that the near cache holds with what its endpoint has prepared. What it does
not recognise falls through to the router.
"""

from typing import Final, Protocol

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from credenza.documents import Documents
from credenza.web.answers import DEFAULT_COLLECTION
from credenza.web.documents import DocumentEndpoints

READS: Final = frozenset({"GET", "HEAD"})
DECIDED_BY_THE_ENDPOINT: Final = frozenset(
    {b"if-match", b"if-modified-since", b"if-unmodified-since"}
)
DEFAULT: Final = "/data/{id}"
NAMED: Final = "/v1/data/{collection}/{id}"

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]


class Asked(Protocol):
    """What `observe` knows of a request, and is told of its answer."""

    headers: dict[bytes, bytes]
    cache: str
    ttl: float | None


class Lane:
    """Wraps the application; see the module."""

    def __init__(self, app: FastAPI, documents: Documents, endpoints: DocumentEndpoints) -> None:
        self.app = app
        self._documents = documents
        self._prepare = endpoints.prepare
        self._routes: dict[tuple[str, str], APIRoute] = {
            (method, route.path): route for route in app.state.routes for method in route.methods
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path, parameters = _recognised(scope["path"])
        route = self._routes.get((scope["method"], path))
        if route is None:
            await self.app(scope, receive, send)
            return
        scope["app"], scope["route"], scope["path_params"] = self.app, route, parameters
        response = await route.endpoint(Request(scope, receive))
        await response(scope, receive, send)

    def near(self, scope: Scope, asked: Asked) -> Answer | None:
        """Return the answer for a document that this process holds, where that is all it takes."""
        method, path, headers = scope["method"], scope["path"], asked.headers
        if path.startswith("/data/"):
            template, collection, id_ = DEFAULT, DEFAULT_COLLECTION, path[6:]
        elif path.startswith("/v1/data/"):
            template = NAMED
            collection, _, id_ = path[9:].partition("/")
        else:
            return None
        known = headers.get(b"if-none-match")
        if (
            method not in READS
            or scope["query_string"]
            or not DECIDED_BY_THE_ENDPOINT.isdisjoint(headers)
            or (known is not None and not _is_one_tag(known))
            or len(headers) < len(scope["headers"])  # some name is there twice
        ):
            return None
        found = self._documents.near(collection, id_, self._prepare)
        if found is None:
            return None
        prepared, asked.ttl = found
        asked.cache = "hit-near"
        scope["route"] = self._routes[method, template]
        if known == prepared.etag:
            return 304, prepared.unchanged, b""
        return 200, prepared.headers, prepared.body


def _recognised(path: str) -> tuple[str, dict[str, str]]:
    """Return the template and the parameters of a path about documents; else no template."""
    match path.split("/"):
        case ["", "data"]:
            return "/data", {}
        case ["", "data", id_] if _is_name(id_):
            return "/data/{id}", {"id": id_}
        case ["", "v1", "data", collection] if collection:
            return "/v1/data/{collection}", {"collection": collection}
        case ["", "v1", "data", collection, id_] if collection and _is_name(id_):
            return "/v1/data/{collection}/{id}", {"collection": collection, "id": id_}
    return "", {}


def _is_name(text: str) -> bool:
    """Return whether the router may take it for an id: what begins with `_` has its own routes."""
    return bool(text) and not text.startswith("_")


def _is_one_tag(value: bytes) -> bool:
    """Return whether it is one strong tag of the form that ours have (RFC 9110 §8.8.3)."""
    return value[:1] == b'"' == value[-1:] and value[1:-1].isdigit()
