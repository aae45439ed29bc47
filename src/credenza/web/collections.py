"""Collections and their settings: `/v1/collections`."""

import re
from collections.abc import Iterable
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from credenza import errors, query, values, wire
from credenza.collection import Collection
from credenza.collections import Collections
from credenza.values import valid_collection
from credenza.web import openapi
from credenza.web.answers import JSON, as_json, collection_of
from credenza.web.bodies import MERGE_PATCH_TYPES, Bodies
from credenza.web.conditional import is_unmodified, write_conditions
from credenza.web.fields import fields_of

MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 50
_LIMIT: Final = re.compile(r"[1-9][0-9]{0,3}")

NAMED: Final = (openapi.COLLECTION,)
PAGE: Final = (
    openapi.LIMIT,
    openapi.parameter(
        "after", "query", "Names after this one.", pattern=openapi.COLLECTION_PATTERN
    ),
)
CHANGE_PROBLEMS: Final = (
    *(errors.MalformedJson, errors.InvalidHeader, errors.InvalidId, errors.PreconditionFailed),
    *(errors.RequestTimeout, errors.PayloadTooLarge, errors.UnsupportedMediaType),
    *(errors.Unprocessable, errors.UnrepresentableJson, errors.Unavailable),
)


class CollectionEndpoints:
    """The endpoints of collections."""

    def __init__(self, collections: Collections, bodies: Bodies) -> None:
        self._collections = collections
        self._bodies = bodies

    def mount(self, router: APIRouter) -> None:
        """Add the routes."""
        route = router.add_api_route
        route("", self.list_, methods=["GET"], name="list", **_LIST)
        route("/{collection}", self.get, methods=["GET"], **_GET)
        for path, page in (("", self.list_), ("/{collection}", self.get)):
            name = f"head_{page.__name__}"
            route(path, page, methods=["HEAD"], name=name, include_in_schema=False)
        route("/{collection}", self.put, methods=["PUT"], **_PUT)
        route("/{collection}", self.patch, methods=["PATCH"], **_PATCH)
        route("/{collection}", self.delete, methods=["DELETE"], **_DELETE)

    async def list_(self, request: Request) -> Response:
        """Answer with a page of collections by name."""
        limit = _limit(request)
        found, following = await self._collections.list(_after(request), limit)
        path = f"{request.url.path}?limit={limit}&after={following}" if following else None
        page = wire.CollectionList(items=[collection.model for collection in found], next=path)
        return as_json(page, headers={"Link": f'<{path}>; rel="next"'} if path else None)

    async def get(self, request: Request) -> Response:
        """Answer with a collection, or 304 where the client has it."""
        collection = await self._collections.read(collection_of(request))
        if is_unmodified(fields_of(request), collection):
            return Response(status_code=304, headers=_validators(collection))
        return _shown(collection)

    async def put(self, request: Request) -> Response:
        """Replace the settings, or make the collection with them."""
        name, conditions = collection_of(request), write_conditions(fields_of(request))
        body = (await self._bodies.value(request)).encode()
        collection, created = await self._collections.put(name, _settings(body), conditions)
        return _shown(collection, status=201 if created else 200)

    async def patch(self, request: Request) -> Response:
        """Merge the body into the settings (RFC 7396)."""
        name, conditions = collection_of(request), write_conditions(fields_of(request))
        patch = values.decode(await self._bodies.merge_patch(request))
        _patched(wire.CollectionSettings(), patch)  # refused whatever is stored
        collection = await self._collections.patch(
            name, lambda settings: _patched(settings, patch), conditions
        )
        return _shown(collection)

    async def delete(self, request: Request) -> Response:
        """Delete the collection with all its documents."""
        name, conditions = collection_of(request), write_conditions(fields_of(request))
        await self._collections.delete(name, conditions)
        return Response(status_code=204)


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not _LIMIT.fullmatch(text) or int(text) > MAX_LIMIT:
        raise errors.InvalidQuery(f"limit is a number from 1 to {MAX_LIMIT}.")
    return int(text)


def _after(request: Request) -> str:
    name = request.query_params.get("after")
    if name is not None and not valid_collection(name):
        raise errors.InvalidQuery("after is the name of a collection.")
    return name or ""


def _settings(text: bytes) -> wire.CollectionSettings:
    try:
        settings = wire.CollectionSettings.model_validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise _unacceptable((fault["loc"], fault["msg"]) for fault in found) from None
    for place, name in enumerate(settings.indexes):
        try:
            query.indexes("", [name])
        except errors.InvalidQuery as problem:
            raise _unacceptable([(("indexes", place), problem.detail)]) from None
    return settings


def _unacceptable(faults: Iterable[tuple[tuple[int | str, ...], str]]) -> errors.Unprocessable:
    return errors.Unprocessable(
        "These settings are not acceptable.",
        errors=[{"pointer": _pointer(place), "detail": detail} for place, detail in faults],
    )


def _pointer(steps: tuple[int | str, ...]) -> str:
    """Return a JSON Pointer (RFC 6901 §3)."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


def _patched(settings: wire.CollectionSettings, patch: values.JSON) -> wire.CollectionSettings:
    current = values.decode(settings.model_dump_json())
    return _settings(values.encode(values.merge_patch(current, patch)).encode())


def _validators(collection: Collection) -> dict[str, str]:
    return {
        "ETag": collection.etag,
        "Last-Modified": collection.last_modified,
        "Cache-Control": "private, no-cache",
    }


def _shown(collection: Collection, *, status: int = 200) -> Response:
    return Response(
        collection.model.model_dump_json(),
        status_code=status,
        headers=_validators(collection),
        media_type=JSON,
    )


_SHOWN: Final[dict[str, Any]] = {
    "description": "The collection.",
    "headers": openapi.headers("ETag", "Last-Modified"),
    "content": openapi.content(openapi.model(wire.Collection)),
}
_LIST: Final = openapi.operation(
    "List collections",
    answers={
        200: {
            "description": "A page.",
            "headers": openapi.headers("Link"),
            "content": openapi.content(openapi.model(wire.CollectionList)),
        }
    },
    problems=(errors.InvalidQuery, errors.Unavailable),
    parameters=PAGE,
)
_GET: Final = openapi.operation(
    "Read a collection's settings",
    answers={200: _SHOWN, 304: {"description": "The client has it."}},
    problems=(
        *(errors.InvalidId, errors.InvalidHeader, errors.NotFound),
        *(errors.PreconditionFailed, errors.Unavailable),
    ),
    parameters=(*NAMED, openapi.IF_NONE_MATCH, openapi.IF_MATCH),
)
_PUT: Final = openapi.operation(
    "Set a collection up",
    answers={200: _SHOWN, 201: _SHOWN | {"description": "Made."}},
    problems=CHANGE_PROBLEMS,
    parameters=(*NAMED, openapi.IF_MATCH, openapi.IF_NONE_MATCH),
    body=openapi.content(openapi.model(wire.CollectionSettings)),
)
_PATCH: Final = openapi.operation(
    "Change a collection's settings by a merge patch",
    answers={200: _SHOWN},
    problems=(*CHANGE_PROBLEMS, errors.NotFound),
    parameters=(*NAMED, openapi.IF_MATCH),
    body={name: {"schema": openapi.model(wire.CollectionChange)} for name in MERGE_PATCH_TYPES},
)
_DELETE: Final = openapi.operation(
    "Delete a collection with its documents",
    answers={204: {"description": "Deleted."}},
    problems=(
        *(errors.InvalidId, errors.InvalidHeader, errors.NotFound),
        *(errors.PreconditionFailed, errors.PreconditionRequired, errors.Unavailable),
    ),
    parameters=(*NAMED, openapi.IF_MATCH | {"required": True}),
)
