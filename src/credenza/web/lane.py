"""The lane: requests about documents reach their endpoint without the router.

Pure ASGI, in front of FastAPI, which stays the truth: the lane calls the endpoints of its routes,
and answers a document that the near cache holds with what its endpoint has prepared. What it does
not recognise falls through to the router.
"""

from typing import Final

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from credenza.documents import Documents
from credenza.telemetry import note_cache
from credenza.web.answers import DEFAULT_COLLECTION
from credenza.web.documents import DocumentEndpoints

READS: Final = frozenset({"GET", "HEAD"})
DECIDED_BY_THE_ENDPOINT: Final = (b"if-match", b"if-modified-since", b"if-unmodified-since")

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]


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
        scope["route"] = route
        answer = self._near(scope, parameters)
        if answer is not None:
            status, headers, body = answer
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        scope["app"] = self.app
        scope["path_params"] = parameters
        response = await route.endpoint(Request(scope, receive))
        await response(scope, receive, send)

    def _near(self, scope: Scope, parameters: dict[str, str]) -> Answer | None:
        """Return the answer for a document that this process holds, where that is all it takes."""
        id_ = parameters.get("id")
        if id_ is None or scope["method"] not in READS or scope["query_string"]:
            return None
        known = None
        for name, value in scope["headers"]:
            if name == b"if-none-match":
                if known is not None or not _is_one_tag(value):
                    return None
                known = value
            elif name in DECIDED_BY_THE_ENDPOINT:
                return None
        collection = parameters.get("collection", DEFAULT_COLLECTION)
        found = self._documents.near(collection, id_, self._prepare)
        if found is None:
            return None
        prepared, ttl = found
        note_cache("hit-near", ttl)
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
