"""The OpenAPI 3.1 document: what each operation takes and answers, as data beside its route.

Must not know how an operation works. Endpoints take the bare request, because FastAPI's own parsing
costs more than the work of most requests here; so their description is given, not derived, and the
suite compares it with what the service really does.
"""

from collections.abc import Iterable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from credenza import __version__, errors, wire
from credenza.settings import Settings

ID_PATTERN: Final = r"^(?!\.{1,2}$)[A-Za-z0-9.~\-][A-Za-z0-9._~\-]{0,127}$"
COLLECTION_PATTERN: Final = r"^[a-z0-9][a-z0-9_\-]{0,62}$"
TAGS_PATTERN: Final = r'^(\*|(W/)?"[!#-~]*"( ?, ?(W/)?"[!#-~]*")*)?$'
NAME_PATTERN: Final = r'[^$.,"()\u0000][^.,"()\u0000]*(\.[^.,"()\u0000]+){0,3}'
"""A field's path; quoted steps are left to the text, for no pattern can tell a JSON string."""

Part = dict[str, Any]

MODELS: Final = (
    wire.Document,
    wire.DocumentList,
    wire.Collection,
    wire.CollectionList,
    wire.CollectionSettings,
    wire.CollectionChange,
    wire.ImportReport,
    wire.ProblemDetails,
    wire.ServiceDocument,
    wire.Health,
)

EVERYWHERE: Final[tuple[type[errors.Problem], ...]] = (
    errors.Unauthenticated,
    errors.Forbidden,
    errors.Overloaded,
)
"""What every request but a probe's can be answered with."""

ANYTHING: Final[Part] = {"description": "Any JSON value."}


def model(type_: type) -> Part:
    """Return a reference to a model's schema."""
    return {"$ref": f"#/components/schemas/{type_.__name__}"}


def content(schema: Part, media_type: str = "application/json") -> Part:
    """Return what a body of one media type is."""
    return {media_type: {"schema": schema}}


def parameter(name: str, place: str, description: str, **schema: Any) -> Part:
    """Return a parameter; those in the path are required."""
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": {"type": "string", **schema},
    }


def names(name: str, description: str, *, pattern: str, maximum: int) -> Part:
    """Return a query parameter that is a comma-separated list of fields."""
    return parameter(name, "query", description) | {
        "style": "form",
        "explode": False,
        "schema": {
            "type": "array",
            "items": {"type": "string", "pattern": pattern},
            "minItems": 1,
            "maxItems": maximum,
            "uniqueItems": True,
        },
    }


ID: Final = parameter("id", "path", "The document's id.", pattern=ID_PATTERN)
COLLECTION: Final = parameter(
    "collection", "path", "The collection's name.", pattern=COLLECTION_PATTERN
)
VIEW: Final = parameter(
    "view", "query", "`data` answers with bare values.", enum=["document", "data"]
)
IF_MATCH: Final = parameter(
    "If-Match", "header", "Entity-tags of which one must be current.", pattern=TAGS_PATTERN
)
IF_NONE_MATCH: Final = parameter(
    "If-None-Match", "header", "Entity-tags that must not be current.", pattern=TAGS_PATTERN
)
PREFER: Final = parameter(
    "Prefer",
    "header",
    "`return=minimal` leaves the document out of the answer; what is not known is ignored "
    "(RFC 7240).",
)
LIMIT: Final = parameter(
    "limit", "query", "Documents of a page.", type="integer", minimum=1, maximum=1000, default=50
)
ORDER: Final = names(
    "order",
    "Fields to sort by, each once, each with `.asc` or `.desc`; `$id`, `$version`, `$created_at`, "
    "`$updated_at` are the metadata.",
    pattern=rf"^(\$(id|version|created_at|updated_at)|{NAME_PATTERN})(\.asc|\.desc)?$",
    maximum=5,
)
SELECT: Final = names(
    "select", "Fields of the data to answer with.", pattern=rf"^{NAME_PATTERN}$", maximum=64
)
CURSOR: Final = parameter("cursor", "query", "Where to go on; taken from `next`, never made up.")
FILTER: Final[Part] = {
    "name": "filter",
    "in": "query",
    "required": False,
    "style": "form",
    "explode": True,
    "description": "Any other parameter is a filter: `field.sub=op.value` with eq, neq, gt, gte, "
    "lt, lte, or `has` alone, each also after `not.`. A value is JSON if it parses as JSON, else a "
    "string.",
    "schema": {
        "type": "object",
        "propertyNames": {"pattern": rf"^data\.{NAME_PATTERN}$"},
        "additionalProperties": {
            "type": "string",
            "pattern": r"^(not\.)?(has|(eq|neq|gt|gte|lt|lte)\.[^\u0000]*)$",
        },
    },
}

HEADERS: Final[dict[str, Part]] = {
    "ETag": {"description": "The version, as a strong entity-tag.", "schema": {"type": "string"}},
    "Last-Modified": {"description": "Time of the last change.", "schema": {"type": "string"}},
    "Location": {"description": "Path of the document.", "schema": {"type": "string"}},
    "Link": {"description": '`rel="next"`: the next page.', "schema": {"type": "string"}},
}


def headers(*names: str) -> dict[str, Part]:
    """Return the description of response headers."""
    return {name: HEADERS[name] for name in names}


def operation(
    summary: str,
    *,
    answers: dict[int, Part],
    problems: Iterable[type[errors.Problem]] = (),
    parameters: Iterable[Part] = (),
    body: Part | None = None,
    needs_body: bool = True,
    is_probe: bool = False,
) -> dict[str, Any]:
    """Return a route's keyword arguments: what it takes, what it answers, how it can fail.

    A probe is answered without a token and whatever the load.
    """
    responses: dict[int | str, Part] = dict(answers.items())
    for problem in (*problems, *(() if is_probe else EVERYWHERE)):
        said = responses.setdefault(
            problem.status,
            {
                "description": "",
                "content": content(model(wire.ProblemDetails), "application/problem+json"),
            },
        )
        said["description"] = f"{said['description']} {problem.code}.".strip()
    extra: Part = {"parameters": list(parameters), **({"security": []} if is_probe else {})}
    if body is not None:
        extra["requestBody"] = {"required": needs_body, "content": body}
    return {
        "summary": summary,
        "responses": responses,
        "status_code": min(answers),
        "openapi_extra": extra,
    }


def document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """Return the service's OpenAPI document, made once."""
    if app.openapi_schema is None:
        found = get_openapi(
            title="Credenza",
            version=__version__,
            description="A self-hosted JSON document service.",
            routes=app.routes,
        )
        _, definitions = models_json_schema(
            [(model_, "serialization") for model_ in MODELS],
            ref_template="#/components/schemas/{model}",
        )
        components = found.setdefault("components", {})
        components.setdefault("schemas", {}).update(definitions["$defs"])
        if settings.wants_token:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"token": []}]
        app.openapi_schema = found
    return app.openapi_schema
