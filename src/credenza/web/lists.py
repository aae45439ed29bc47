"""Many documents: pages, exports and imports; below `/data` and `/v1/data/{collection}` alike."""

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request, Response

from credenza import errors, query, wire
from credenza.exports import Exports
from credenza.lists import Lists, Page
from credenza.pages import Asked, Pages
from credenza.transfer import Imports, OnConflict, Plan
from credenza.web import openapi
from credenza.web.answers import Answer, as_json, caching, collection_of, shows_data
from credenza.web.bodies import NDJSON_TYPES, Bodies
from credenza.web.conditional import known_tags
from credenza.web.fields import fields_of
from credenza.web.parts import Parts, in_parts

NDJSON: Final = NDJSON_TYPES[0]
SAFE: Final = "$,.:()*!-_~"
"""Characters that need no escape in a query and make links readable (RFC 3986 §3.4)."""

MAX_PARAMETERS: Final = 200
NOT_STORED: Final = (b"cache-control", b"no-store")

Pairs = list[tuple[str, str]]
Part = dict[str, Any]


class ListEndpoints:
    """The endpoints of many documents."""

    def __init__(
        self, pages: Pages, lists: Lists, exports: Exports, imports: Imports, bodies: Bodies
    ) -> None:
        self._pages = pages
        self._lists = lists
        self._exports = exports
        self._imports = imports
        self._bodies = bodies

    def mount(self, router: APIRouter, named: tuple[Part, ...]) -> None:
        """Add the routes; `named` are the path's parameters."""
        route = router.add_api_route
        route("", self.list_, methods=["GET"], name="list", **_list(named))
        route("", self.list_, methods=["HEAD"], name="head_list", **_head(named))
        route("/_export", self.export, methods=["GET"], **_export(named))
        route("/_import", self.import_, methods=["POST"], name="import", **_import(named))

    async def list_(self, request: Request) -> Response:
        """Answer with a page, or 304 where the client has it."""
        collection, pairs = collection_of(request), _pairs(request)
        asked = Asked(collection, _address(request), query.parse(pairs))
        known = known_tags(fields_of(request))
        shown = await self._pages.show(asked, known, lambda page: _written(request, pairs, page))
        headers = [
            (b"etag", b'W/"%s"' % shown.tag.encode()),
            caching(None, is_shared=False),
        ]
        if shown.body is None:
            return Answer(304, headers)
        if shown.following:
            headers.append((b"link", f'<{shown.following}>; rel="next"'.encode()))
        return in_parts(shown.body, headers)

    async def export(self, request: Request) -> Response:
        """Answer with all documents, a line each, as they are read."""
        pairs = _pairs(request)
        if any(name in {"limit", "cursor"} for name, _ in pairs):
            raise errors.InvalidQuery("An export has no pages: it takes no limit and no cursor.")
        if all(name != "view" for name, _ in pairs):
            pairs.append(("view", "data"))
        wanted = query.parse(pairs)
        lines = self._exports.lines(collection_of(request), wanted)
        first = await anext(lines, b"")  # a query that fails is refused before the answer begins
        return Parts([NOT_STORED, (b"content-type", NDJSON.encode())], first, lines)

    async def import_(self, request: Request) -> Response:
        """Store each line of the body as a document; a bare value unless `view=document`."""
        lines = self._bodies.lines(request, max_line=self._imports.max_line)
        return as_json(await self._imports.run(_plan(request), lines))


def _pairs(request: Request) -> Pairs:
    """Return the query's names and values, which must be UTF-8."""
    try:
        return parse_qsl(
            request.scope["query_string"].decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except UnicodeDecodeError:
        raise errors.InvalidQuery("The query is not UTF-8.") from None
    except ValueError:
        raise errors.InvalidQuery(f"A query has {MAX_PARAMETERS} parameters at the most.") from None


def _address(request: Request) -> bytes:
    """Return the path and the parameters: all of a request that a page's bytes depend on."""
    query_string: bytes = request.scope["query_string"]
    path: str = request.scope["path"]
    return path.encode() + b"?" + query_string


def _written(request: Request, pairs: Pairs, page: Page) -> tuple[bytes, str | None]:
    """Return a page's bytes and the path of the next one."""
    path = _next(request, pairs, page.cursor) if page.cursor else None
    return wire.page(page.items, path), path


def _next(request: Request, pairs: Iterable[tuple[str, str]], cursor: str) -> str:
    """Return the path of the next page: the same query from another place."""
    kept = [(name, value) for name, value in pairs if name != "cursor"]
    return f"{request.scope['path']}?{urlencode([*kept, ('cursor', cursor)], safe=SAFE)}"


def _plan(request: Request) -> Plan:
    """Return how an import is to be done; InvalidQuery where a parameter would mean nothing."""
    pairs = _pairs(request)
    given = dict(pairs)
    if len(given) < len(pairs) or not given.keys() <= {"on_conflict", "view"}:
        raise errors.InvalidQuery("An import takes on_conflict and view, each once.")
    try:
        on_conflict = OnConflict(given.get("on_conflict", OnConflict.ERROR))
    except ValueError:
        raise errors.InvalidQuery("on_conflict is error, replace or skip.") from None
    whole = "view" in given and not shows_data(request)
    return Plan(collection_of(request), whole=whole, on_conflict=on_conflict)


QUERY: Final = (openapi.FILTER, openapi.SELECT, openapi.ORDER, openapi.VIEW)
READ_PROBLEMS: Final = (
    *(errors.InvalidId, errors.InvalidQuery, errors.QueryTooExpensive),
    errors.Unavailable,
)

TAGGED: Final[dict[str, Part]] = {
    "ETag": {
        "description": "A weak entity-tag; the same one as long as the list is the same.",
        "schema": {"type": "string"},
    }
}


def _list(named: tuple[Part, ...]) -> Part:
    return openapi.operation(
        "List documents",
        answers={
            200: {
                "description": "A page.",
                "headers": TAGGED | openapi.headers("Link"),
                "content": openapi.content(openapi.model(wire.DocumentList)),
            },
            304: {"description": "The client has it.", "headers": TAGGED},
        },
        problems=(
            *(*READ_PROBLEMS, errors.CursorMismatch),
            *(errors.InvalidHeader, errors.PreconditionFailed),
        ),
        parameters=(
            *(*named, *QUERY, openapi.LIMIT, openapi.CURSOR),
            *(openapi.IF_NONE_MATCH, openapi.IF_MATCH),
        ),
    )


def _head(named: tuple[Part, ...]) -> Part:
    return _list(named) | {"summary": "Read a list's headers"}


def _export(named: tuple[Part, ...]) -> Part:
    return openapi.operation(
        "Export documents, a line each",
        answers={
            200: {
                "description": "Bare values; whole documents with `view=document`.",
                "content": openapi.content({"type": "string"}, NDJSON),
            }
        },
        problems=READ_PROBLEMS,
        parameters=(*named, *QUERY),
    )


def _import(named: tuple[Part, ...]) -> Part:
    return openapi.operation(
        "Import documents, a line each",
        answers={
            200: {
                "description": "What was taken.",
                "content": openapi.content(openapi.model(wire.ImportReport)),
            }
        },
        problems=(
            *(errors.InvalidId, errors.InvalidQuery, errors.RequestTimeout),
            *(errors.UnsupportedMediaType, errors.ImportFailed, errors.Unavailable),
        ),
        parameters=(
            *(*named, openapi.VIEW),
            openapi.parameter(
                "on_conflict",
                "query",
                "What becomes of a line whose id exists.",
                enum=[str(choice) for choice in OnConflict],
            ),
        ),
        body=openapi.content({"description": "A JSON value a line."}, NDJSON),
        needs_body=False,
    )
