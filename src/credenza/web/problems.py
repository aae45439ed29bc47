"""Errors out: every failure becomes one `application/problem+json` answer (RFC 9457), here.

Must not decide what is a failure; `errors` is the closed list.
"""

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from credenza import errors

MEDIA_TYPE = "application/problem+json"
IN_PATHS: Final = "/!$&'()*+,;=:@"
"""Characters that need no escape in a path, besides those that never do (RFC 3986 §3.3)."""

log = structlog.get_logger()


def render(problem: errors.Problem, *, path: str, request_id: str) -> Response:
    """Return a problem's answer; `type` is a URI reference whose last part is the code.

    So is `instance`, the path with its escapes (RFC 9457 §3.1.5).
    """
    if isinstance(problem, errors.Unavailable):
        log.warning(
            "unavailable",
            request_id=request_id,
            cause=repr(problem.__cause__),
            detail=problem.detail,
        )
    document: dict[str, Any] = {
        "type": f"urn:credenza:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail or problem.title,
        "instance": quote(path, safe=IN_PATHS),
        "code": problem.code,
        "request_id": request_id,
        **problem.members,
    }
    return Response(
        msgspec.json.encode(document),
        status_code=problem.status,
        headers={**problem.headers, "Cache-Control": "no-store"},
        media_type=MEDIA_TYPE,
    )


def _answer(request: Request, problem: errors.Problem) -> Response:
    scope = request.scope
    return render(problem, path=scope["path"], request_id=scope["state"]["request_id"])


async def on_problem(request: Request, error: Exception) -> Response:
    """Answer for a failure of the closed list."""
    if not isinstance(error, errors.Problem):
        raise error
    return _answer(request, error)


async def on_unexpected(request: Request, error: Exception) -> Response:
    """Answer for what is nobody's fault but ours; who called the application is told as well."""
    return _answer(request, errors.Internal())


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer for what the router refuses: unknown paths and methods."""
    is_known = (
        isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    )
    # Of a name that begins with `_` the router knows methods that an id would have.
    if is_known and (methods := methods_at(request)):
        return _answer(request, not_allowed(methods))
    return _answer(request, errors.NotFound(f"There is nothing at {request.url.path}."))


def not_allowed(methods: list[str]) -> errors.MethodNotAllowed:
    """Return the refusal of a method where these are known."""
    allowed = ", ".join(methods)
    return errors.MethodNotAllowed(f"Allowed here: {allowed}.", headers={"Allow": allowed})


async def on_validation_error(request: Request, error: Exception) -> Response:
    """Answer for parameters that FastAPI itself refuses."""
    return _answer(request, errors.InvalidQuery(str(error)))


def methods_at(request: Request) -> list[str]:
    """Return the methods of all routes that match the request's path (RFC 9110 §10.2.1)."""
    is_reserved = request.url.path.rpartition("/")[2].startswith("_")
    methods: set[str] = set()
    for route in request.app.state.routes:
        match, _ = route.matches(request.scope)
        # Names that begin with `_` are no ids, although a router takes them for one.
        if match is not Match.NONE and not (is_reserved and route.path.endswith("{id}")):
            methods |= route.methods or set()
    return sorted(methods)


def install(app: FastAPI) -> None:
    """Make the application answer every failure this way."""
    app.add_exception_handler(errors.Problem, on_problem)
    app.add_exception_handler(Exception, on_unexpected)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
