"""The only wire formats: Pydantic models for the OpenAPI document, bytes for the hot paths.

Must not know routes, SQL or the cache. The stored JSON text of a document is passed through; it is
never decoded to be encoded again.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple, Self

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMESTAMP_LENGTH = len("2026-01-01T00:00:00.000000Z")


@lru_cache(1_000)
def timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC with microseconds, always 27 characters long.

    Those of one group of writes are equal, and so are mostly the two of one document.
    """
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


@lru_cache(1_000)
def timestamp_at(microseconds: int) -> str:
    """Return the timestamp of what `moment` returns."""
    return timestamp(moment(microseconds))


def moment(microseconds: int) -> datetime:
    """Return the point in time that lies so many microseconds after 1970."""
    return EPOCH + timedelta(microseconds=microseconds)


def http_date(moment: datetime) -> str:
    """Return the time as an HTTP date, in whole seconds (RFC 9110 §5.6.7)."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)


@lru_cache(100)
def _http_day(day: str) -> str:
    """Return a date (2026-01-31) as HTTP dates begin: most documents were changed on few days."""
    return http_date(datetime.fromisoformat(day).replace(tzinfo=UTC)).rpartition(" ")[0][:-9]


def represent(id_: str, version: int, created_at: str, updated_at: str, data: str) -> str:
    """Return a document with its metadata as JSON.

    The times are timestamps, `data` is JSON, and an id needs no escapes.
    """
    return (
        f'{{"id":"{id_}","version":{version},"created_at":"{created_at}",'
        f'"updated_at":"{updated_at}","data":{data}}}'
    )


class StoredDocument(NamedTuple):
    """One document as its response's bytes: `{"id","version","created_at","updated_at","data"}`.

    Its parts lie at known places, so that the bare value and the time of the last change are
    slices and nothing is parsed.
    """

    id: str
    version: int
    body: bytes

    @classmethod
    def build(
        cls, id_: str, version: int, created_at: datetime, updated_at: datetime, data: str
    ) -> Self:
        """Put the representation together from a row."""
        times = timestamp(created_at), timestamp(updated_at)
        return cls(id_, version, represent(id_, version, *times, data).encode())

    @property
    def etag(self) -> str:
        """The strong entity-tag (RFC 9110 §8.8.3)."""
        return f'"{self.version}"'

    @property
    def data(self) -> bytes:
        """The bare value."""
        return self.body[self._data_at : -1]

    @property
    def updated_at(self) -> datetime:
        """The time of the last change, with microseconds."""
        return datetime.fromisoformat(self._updated_at[:-1]).replace(tzinfo=UTC)

    @property
    def last_modified(self) -> str:
        """The time of the last change as an HTTP date."""
        return f"{_http_day(self._updated_at[:10])} {self._updated_at[11:19]} GMT"

    @property
    def _updated_at(self) -> str:
        end = self._data_at - len('","data":')
        return self.body[end - TIMESTAMP_LENGTH : end].decode()

    @property
    def _data_at(self) -> int:
        head = '{"id":"","version":,"created_at":"","updated_at":"","data":'
        return len(head) + len(self.id) + len(str(self.version)) + 2 * TIMESTAMP_LENGTH


def page(items: Iterable[str], next_path: str | None) -> bytes:
    """Return a list's body: the items, which are JSON, and the path of the next page."""
    return f'{{"items":[{",".join(items)}],"next":'.encode() + msgspec.json.encode(next_path) + b"}"


class Document(BaseModel):
    """A stored document: metadata beside the client's own JSON."""

    id: str = Field(examples=["01926f3a-7b1c-7d6e-8f00-0a1b2c3d4e5f"])
    version: int = Field(description="Grows with each write of this document; the ETag.")
    created_at: datetime
    updated_at: datetime
    data: Any = Field(description="Any JSON value.")


class DocumentList(BaseModel):
    """A page of documents."""

    items: list[Document | Any] = Field(description="Documents; bare values with `view=data`.")
    next: str | None = Field(description="Path of the next page; null on the last.")


def _whole(value: object) -> object:
    """Return 60.0 as 60: JSON has one kind of number (RFC 8259 §6)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


MaxAge = Annotated[int, Field(ge=0, le=31_536_000), BeforeValidator(_whole)]


MAX_INDEXES: Final = 8
"""Each is more to write for every document of its collection."""

IndexName = Annotated[str, Field(min_length=1, max_length=256)]


class CollectionSettings(BaseModel):
    """What can be set for a collection."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    cache_ttl: Annotated[float, Field(gt=0, le=60)] | None = Field(
        None, description="Seconds that the server may keep a document; null: `CACHE_TTL`."
    )
    http_max_age: MaxAge | None = Field(
        None,
        description="Seconds that browsers and CDNs may reuse an answer without asking; null: "
        "they ask each time.",
    )
    require_if_match: bool = Field(
        False, description="Refuse PUT, PATCH and DELETE of a document without If-Match (428)."
    )
    indexes: tuple[IndexName, ...] = Field(
        (),
        max_length=MAX_INDEXES,
        description="Fields, as in filters, and `$created_at`, `$updated_at` or `$version`, whose "
        "comparisons and order are to be found by an index.",
    )


class CollectionChange(CollectionSettings):
    """A merge patch of a collection's settings: null is the default again."""

    require_if_match: bool | None = None  # type: ignore[assignment]  # a patch, not settings
    indexes: tuple[IndexName, ...] | None = None  # type: ignore[assignment]


class Collection(BaseModel):
    """A collection and its settings."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    created_at: datetime
    updated_at: datetime
    settings: CollectionSettings


class CollectionList(BaseModel):
    """A page of collections, by name."""

    items: list[Collection]
    next: str | None


class ImportReport(BaseModel):
    """What an import took."""

    taken: int = Field(description="Lines of the request that were taken.")
    written: int = Field(
        description="Documents written; less than `taken` where some were skipped."
    )


class FieldError(BaseModel):
    """A place in the body and what is wrong there."""

    pointer: str | None = Field(None, description="JSON Pointer (RFC 6901).")
    line: int | None = Field(None, description="Line of an import, from 1.")
    code: str | None = Field(None, description="Stable name of what is wrong with that line.")
    detail: str


class ProblemDetails(BaseModel):
    """Why a request was refused (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="URI of the failure's documentation.")
    title: str
    status: int
    detail: str | None = None
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable name of the failure.")
    request_id: str
    errors: list[FieldError] | None = None


class Limits(BaseModel):
    """The limits that a client should know."""

    max_body_bytes: int
    max_depth: int
    max_page_bytes: int
    max_limit: int


class ServiceDocument(BaseModel):
    """What the service is and where its resources are."""

    name: str
    version: str
    links: dict[str, str]
    limits: Limits


class Check(BaseModel):
    """The state of one dependency."""

    status: str = Field(description="ok, degraded, down or off.")
    detail: str | None = None


class Health(BaseModel):
    """The state of the process and of what it depends on."""

    status: str = Field(description="ok, degraded, or unavailable.")
    version: str
    checks: dict[str, Check]
