"""One document: create, read, put, patch, delete; at `/data` and `/v1/data/{collection}`."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from credenza import errors, values, wire
from credenza.collection import Collection
from credenza.collections import Collections
from credenza.documents import Documents
from credenza.web import openapi
from credenza.web.answers import (
    Answer,
    Headers,
    caching,
    collection_of,
    id_of,
    shows_data,
    validators,
    written,
)
from credenza.web.bodies import MERGE_PATCH_TYPES, Bodies
from credenza.web.conditional import is_unmodified, write_conditions
from credenza.web.fields import fields_of

BODY_PROBLEMS: Final = (
    errors.MalformedJson,
    errors.RequestTimeout,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
    errors.UnrepresentableJson,
)
KEYED_PROBLEMS: Final = (errors.InvalidId, errors.InvalidQuery, errors.Unavailable)
CONDITION_PROBLEMS: Final = (errors.InvalidHeader, errors.PreconditionFailed)

SHOWN: Final = openapi.content(
    {"anyOf": [openapi.model(wire.Document), openapi.ANYTHING]},
)
CREATED: Final = {
    "description": "Created.",
    "headers": openapi.headers("ETag", "Last-Modified", "Location"),
    "content": SHOWN,
}
REPLACED: Final = {
    "description": "Stored.",
    "headers": openapi.headers("ETag", "Last-Modified"),
    "content": SHOWN,
}
MINIMAL: Final = {"description": "Stored; the answer was not asked for."}


UNCHANGED_HEADERS: Final = 3
"""ETag, Last-Modified and Cache-Control: what a 304 has of a 200's headers (RFC 9110 §15.4.5)."""


class DocumentEndpoints:
    """The endpoints of single documents."""

    def __init__(
        self,
        documents: Documents,
        collections: Collections,
        bodies: Bodies,
        *,
        is_open: bool,
    ) -> None:
        self._documents = documents
        self._collections = collections
        self._bodies = bodies
        self._is_open = is_open

    def mount(self, router: APIRouter, named: tuple[dict[str, Any], ...]) -> None:
        """Add the routes; `named` are the path's parameters before the id."""
        route = router.add_api_route
        keyed = (*named, openapi.ID)
        route("", self.create, methods=["POST"], **_create(named))
        route("/{id}", self.get, methods=["GET"], **_get(keyed))
        route("/{id}", self.get, methods=["HEAD"], name="head", **_head(keyed))
        route("/{id}", self.put, methods=["PUT"], **_put(keyed))
        route("/{id}", self.patch, methods=["PATCH"], **_patch(keyed))
        route("/{id}", self.delete, methods=["DELETE"], **_delete(keyed))

    async def create(self, request: Request) -> Response:
        """Store the body under a new id."""
        shows_data(request)
        collection = collection_of(request)
        document = await self._documents.create(collection, await self._bodies.value(request))
        return written(request, document, location=f"{request.scope['path']}/{document.id}")

    async def get(self, request: Request) -> Response:
        """Answer with the document, or 304 where the client has it."""
        collection, bare = collection_of(request), shows_data(request)
        document = await self._documents.read(collection, id_of(request))
        known = await self._collections.find(collection)
        headers = self._headers(document, known)
        if is_unmodified(fields_of(request), document):
            return Answer(304, headers)
        return Answer(200, headers, document.data if bare else document.body)

    def _headers(self, document: wire.StoredDocument, known: Collection | None) -> Headers:
        max_age = None if known is None else known.settings.http_max_age
        return [*validators(document), caching(max_age, is_shared=self._is_open)]

    def prepare(self, document: wire.StoredDocument, known: Collection) -> Headers:
        """Return the headers of a GET's answer, for the lane; the ETag's is the first.

        The first UNCHANGED_HEADERS are those of a 304.
        """
        return Answer(200, self._headers(document, known), document.body).raw_headers

    async def put(self, request: Request) -> Response:
        """Store the body under the id of the path."""
        collection, id_ = collection_of(request), id_of(request)
        shows_data(request)
        conditions = write_conditions(fields_of(request))
        data = await self._bodies.value(request)
        document, created = await self._documents.put(collection, id_, data, conditions)
        return written(request, document, location=request.scope["path"] if created else None)

    async def patch(self, request: Request) -> Response:
        """Merge the body into the document (RFC 7396)."""
        collection, id_ = collection_of(request), id_of(request)
        shows_data(request)
        conditions = write_conditions(fields_of(request))
        patch = await self._bodies.merge_patch(request)
        document = await self._documents.patch(
            collection, id_, lambda data: self._merged(data, patch), conditions, size=len(patch)
        )
        return written(request, document, location=None)

    def _merged(self, data: values.JSON, patch: str) -> str:
        """Return the outcome as text; what holds of a body holds of it."""
        merged = values.merge_patch(data, values.decode(patch))
        return self._bodies.check(values.encode(merged).encode())

    async def delete(self, request: Request) -> Response:
        """Delete the document."""
        collection, id_ = collection_of(request), id_of(request)
        await self._documents.delete(collection, id_, write_conditions(fields_of(request)))
        return Response(status_code=204)


def _create(named: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return openapi.operation(
        "Create a document",
        answers={201: CREATED},
        problems=(*BODY_PROBLEMS, *KEYED_PROBLEMS),
        parameters=(*named, openapi.VIEW, openapi.PREFER),
        body=openapi.content(openapi.ANYTHING),
    )


def _get(keyed: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return openapi.operation(
        "Read a document",
        answers={200: REPLACED | {"description": "The document."}, 304: _UNCHANGED},
        problems=(*CONDITION_PROBLEMS, *KEYED_PROBLEMS, errors.NotFound),
        parameters=(*keyed, openapi.VIEW, openapi.IF_NONE_MATCH, openapi.IF_MATCH),
    )


def _head(keyed: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return _get(keyed) | {"summary": "Read a document's headers"}


def _put(keyed: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return openapi.operation(
        "Store a document under an id",
        answers={200: REPLACED, 201: CREATED, 204: MINIMAL},
        problems=(
            *(*BODY_PROBLEMS, *KEYED_PROBLEMS, *CONDITION_PROBLEMS),
            errors.PreconditionRequired,
        ),
        parameters=(
            *(*keyed, openapi.VIEW, openapi.PREFER),
            *(openapi.IF_MATCH, openapi.IF_NONE_MATCH),
        ),
        body=openapi.content(openapi.ANYTHING),
    )


def _patch(keyed: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return openapi.operation(
        "Change a document by a merge patch",
        answers={200: REPLACED, 204: MINIMAL},
        problems=(
            *(*BODY_PROBLEMS, *KEYED_PROBLEMS, *CONDITION_PROBLEMS),
            *(errors.NotFound, errors.PreconditionRequired),
        ),
        parameters=(*keyed, openapi.VIEW, openapi.PREFER, openapi.IF_MATCH),
        body={name: openapi.content(openapi.ANYTHING, name)[name] for name in MERGE_PATCH_TYPES},
    )


def _delete(keyed: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return openapi.operation(
        "Delete a document",
        answers={204: {"description": "Deleted."}},
        problems=(
            *(*KEYED_PROBLEMS, *CONDITION_PROBLEMS),
            *(errors.NotFound, errors.PreconditionRequired),
        ),
        parameters=(*keyed, openapi.IF_MATCH),
    )


_UNCHANGED: Final = {
    "description": "The client has it.",
    "headers": openapi.headers("ETag", "Last-Modified"),
}
