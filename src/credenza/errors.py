"""The closed list of failures: status, stable code, title; `web.problems` renders them.

Knows nothing of HTTP frameworks or of the database. The docstring of each class is its
documentation (`docs/reference/errors.md` is made from it). A client may rely on `code`; `detail` is
for people.
Status codes follow RFC 9110 §15, RFC 6585 and RFC 9457.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class Problem(Exception):
    """Base of every failure that a client sees.

    `detail` explains this occurrence, `headers` are added to the response (`Retry-After`, `Allow`),
    `members` are extension members of the problem document (RFC 9457 §3.2).
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(
        self, detail: str = "", *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members


class MalformedJson(Problem):
    """The body is not JSON (RFC 8259), or not UTF-8."""

    status, code, title = 400, "malformed-json", "The body is not valid JSON"


class InvalidQuery(Problem):
    """A query parameter is unknown to the grammar, out of range or given twice."""

    status, code, title = 400, "invalid-query", "The query cannot be understood"


class CursorMismatch(Problem):
    """The cursor was not made by this service, or belongs to another query."""

    status, code, title = 400, "cursor-mismatch", "The cursor does not belong to this query"


class InvalidId(Problem):
    """The document id or the collection name has a form that the service does not accept."""

    status, code, title = 400, "invalid-id", "The name is not acceptable"


class InvalidHeader(Problem):
    """A header that decides about the outcome (If-Match, Prefer …) cannot be parsed."""

    status, code, title = 400, "invalid-header", "A header cannot be understood"


class Unauthenticated(Problem):
    """The request carries no token, or a wrong one, and the service asks for it (RFC 6750 §3)."""

    status, code, title = 401, "unauthenticated", "Authentication is required"


class Forbidden(Problem):
    """A web page of another site asks, or the request came by a name that is not this machine's.

    Without a token a service on loopback believes only requests that no foreign page can have sent
    (Fetch Metadata; DNS rebinding).
    """

    status, code, title = 403, "forbidden", "The request is not allowed"


class NotFound(Problem):
    """There is no such document, collection or path."""

    status, code, title = 404, "not-found", "Not found"


class MethodNotAllowed(Problem):
    """The resource exists but does not know this method; `Allow` lists those it knows."""

    status, code, title = 405, "method-not-allowed", "The method is not allowed here"


class RequestTimeout(Problem):
    """The body did not arrive in time; nothing was stored, but `taken` lines of an import."""

    status, code, title = 408, "request-timeout", "The body did not arrive in time"


class PreconditionFailed(Problem):
    """If-Match, If-None-Match or If-Unmodified-Since did not hold; `current` is what is stored."""

    status, code, title = 412, "precondition-failed", "A precondition did not hold"


class PayloadTooLarge(Problem):
    """The body is longer than `MAX_BODY_BYTES`."""

    status, code, title = 413, "payload-too-large", "The body is too large"


class UnsupportedMediaType(Problem):
    """The body has a media type that this method does not take, or is compressed."""

    status, code, title = 415, "unsupported-media-type", "The media type is not supported"


class Unprocessable(Problem):
    """The body is JSON, but its content is not acceptable; `errors` points at the places."""

    status, code, title = 422, "unprocessable", "The content is not acceptable"


class UnrepresentableJson(Problem):
    """The body is JSON that PostgreSQL's jsonb cannot hold; `errors` points at the place.

    That is U+0000, lone surrogates, numbers of more than 1,000 digits when written out, nesting
    deeper than `MAX_DEPTH`, and values that are given back in more than twice `MAX_BODY_BYTES`.
    """

    status, code, title = 422, "unrepresentable-json", "The value cannot be stored exactly"


class QueryTooExpensive(Problem):
    """The database gave the statement up after `QUERY_TIMEOUT`; repeating it will not help."""

    status, code, title = 422, "query-too-expensive", "The query takes too long"


class ImportFailed(Problem):
    """A chunk of an import was refused: `taken` lines are stored, `line` is where to resume.

    `errors` has the `line`, the `code`, which is one of this list, and the `detail` of each bad
    line; one that is too long too.
    """

    status, code, title = 422, "import-failed", "The import stopped at a bad line"


class PreconditionRequired(Problem):
    """The collection asks for If-Match on writes to existing documents (RFC 6585 §3)."""

    status, code, title = 428, "precondition-required", "If-Match is required"


class Internal(Problem):
    """A fault of the service itself; the log has the details under the request id."""

    status, code, title = 500, "internal", "Internal error"


class Unavailable(Problem):
    """The database cannot be reached; a write with `outcome: unknown` may have been committed."""

    status, code, title = 503, "unavailable", "The service is not available"

    def __init__(self, detail: str = "", *, retry_after: int = 1, **members: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, **members)

    @property
    def outcome_is_unknown(self) -> bool:
        """Whether what was to be written may have been committed."""
        return self.members.get("outcome") == "unknown"


class Overloaded(Problem):
    """Past `MAX_IN_FLIGHT` requests, two exports, or 5,000 who wait for the database.

    Nothing was done.
    """

    status, code, title = 503, "overloaded", "Too many requests at once"

    def __init__(self, detail: str = "", *, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


ALL: tuple[type[Problem], ...] = tuple(
    sorted(
        (*Problem.__subclasses__(),),
        key=lambda problem: (problem.status, problem.code),
    )
)
