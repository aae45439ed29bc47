"""The lane: requests about documents reach their endpoint without the router.

Pure ASGI, in front of FastAPI, which stays the truth: the lane calls the endpoints of its routes,
and answers a document that the near cache holds with what its endpoint has prepared. What it does
not recognise falls through to the router.
"""

from typing import Final, TypeAlias
from weakref import WeakValueDictionary

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from credenza.documents import Documents, Hold
from credenza.web.answers import DEFAULT_COLLECTION, Headers
from credenza.web.documents import UNCHANGED_HEADERS, DocumentEndpoints
from credenza.web.fields import Fields

READS: Final = frozenset({"GET", "HEAD"})
DECIDED_BY_THE_ENDPOINT: Final = frozenset(
    {b"if-match", b"if-modified-since", b"if-unmodified-since"}
)
DEFAULT: Final = "/data/{id}"
NAMED: Final = "/v1/data/{collection}/{id}"

Hit: TypeAlias = tuple[int, Headers, bytes, float, str]
"""An answer from the near cache: status, headers, body, seconds to live, and the route."""


class Lane:
    """Wraps the application; see the module."""

    def __init__(self, app: FastAPI, documents: Documents, endpoints: DocumentEndpoints) -> None:
        self.app = app
        self._documents = documents
        self._prepare = endpoints.prepare
        self._routes: dict[tuple[str, str], APIRoute] = {
            (method, route.path): route for route in app.state.routes for method in route.methods
        }
        self._holds: WeakValueDictionary[str, Hold[Headers]] = WeakValueDictionary()
        """Answers by the paths that they were asked for; each leaves with its document."""

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

    def near(self, scope: Scope, fields: Fields) -> Hit | None:
        """Return the answer about a document that this process holds, where that is all it takes.

        What depends on the request alone is not in its headers yet.
        """
        method, known = scope["method"], fields.get(b"if-none-match")
        if (
            method not in READS
            or scope["query_string"]
            or (known is not None and not _is_one_tag(known))
            or not DECIDED_BY_THE_ENDPOINT.isdisjoint(fields)
        ):
            return None
        path = scope["path"]
        hold = self._holds.get(path)
        if hold is None or not (ttl := self._documents.left(hold)):
            hold = self._hold(path)
            if hold is None or not (ttl := self._documents.left(hold)):
                return None
        headers, route = hold.prepared, DEFAULT if path.startswith("/data/") else NAMED
        if known == headers[0][1]:
            return 304, headers[:UNCHANGED_HEADERS], b"", ttl, route
        return 200, headers, hold.document.body or b"", ttl, route

    def _hold(self, path: str) -> Hold[Headers] | None:
        """Return what a path is answered with from now on, if this process holds it."""
        if path.startswith("/data/"):
            collection, id_ = DEFAULT_COLLECTION, path[6:]
        elif path.startswith("/v1/data/"):
            collection, _, id_ = path[9:].partition("/")
        else:
            return None
        hold = self._documents.near(collection, id_, self._prepare)
        if hold is not None:
            self._holds[path] = hold
        return hold


def _recognised(path: str) -> tuple[str, dict[str, str]]:
    """Return the template and the parameters of a path about documents; else no template."""
    match path.split("/"):
        case ["", "data"]:
            return "/data", {}
        case ["", "data", id_] if _is_name(id_):
            return DEFAULT, {"id": id_}
        case ["", "v1", "data", collection] if collection:
            return "/v1/data/{collection}", {"collection": collection}
        case ["", "v1", "data", collection, id_] if collection and _is_name(id_):
            return NAMED, {"collection": collection, "id": id_}
    return "", {}


def _is_name(text: str) -> bool:
    """Return whether the router may take it for an id: what begins with `_` has its own routes."""
    return bool(text) and not text.startswith("_")


def _is_one_tag(value: bytes) -> bool:
    """Return whether it is one strong tag of the form that ours have (RFC 9110 §8.8.3)."""
    return value[:1] == b'"' == value[-1:] and value[1:-1].isdigit()
