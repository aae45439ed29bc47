"""What a query means, however it was written: filter, order, selection.

Must not know the forms that it is written in, nor SQL. A filter is two-valued: a leaf on a missing
field or on another JSON type is false.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from credenza import errors, values

Operator: TypeAlias = Literal["eq", "gt", "gte", "lt", "lte"]
View: TypeAlias = Literal["document", "data"]
Position: TypeAlias = tuple[str, ...]
"""Where a page ended: the sort keys of its last row, as text."""

METADATA: Final = ("$id", "$version", "$created_at", "$updated_at")

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Field:
    """A place in the document: the keys of the objects that lead to it; none is the whole value.

    Arrays are never looked into: a step leads on from an object alone.
    """

    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the service itself keeps of each document, one of `METADATA`; it is never missing."""

    name: str


Target: TypeAlias = Field | Metadata


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field is there, has the value's JSON type, and compares so.

    Numbers compare by value, strings by code point, false before true, and null is equal to null.
    Arrays and objects can only be equal.
    """

    field: Field
    operator: Operator
    value: values.JSON


@dataclass(frozen=True, slots=True)
class MetadataComparison:
    """Metadata compare so with a value of their own type."""

    metadata: Metadata
    operator: Operator
    value: str | Decimal | datetime


@dataclass(frozen=True, slots=True)
class Has:
    """The target is there, if only as null."""

    target: Target


@dataclass(frozen=True, slots=True)
class Not:
    """The filter does not hold."""

    filter: "Filter"


@dataclass(frozen=True, slots=True)
class And:
    """All filters hold; so they do where there is none."""

    filters: tuple["Filter", ...]


Filter: TypeAlias = Comparison | MetadataComparison | Has | Not | And


@dataclass(frozen=True, slots=True)
class Sort:
    """One key of an order."""

    target: Target
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A whole query; `select` is None for everything, `cursor` is still signed."""

    filter: And = And(())
    order: tuple[Sort, ...] = (Sort(Metadata("$id")),)
    select: tuple[Field, ...] | None = None
    limit: int = 50
    view: View = "document"
    cursor: str | None = None


def comparison(
    target: Target, operator: Operator, value: values.JSON
) -> Comparison | MetadataComparison:
    """Return a comparison; InvalidQuery for a value that could not be compared with any target's.

    Fields have no type, so that any value will do for them; metadata have one.
    """
    if isinstance(target, Metadata):
        typed = _METADATA_VALUES[target.name](target.name, value)
        return MetadataComparison(target, operator, typed)
    if operator != "eq" and isinstance(value, list | dict):
        raise errors.InvalidQuery(f"{operator} does not compare arrays or objects.")
    return Comparison(target, operator, value)


def _text(name: str, value: values.JSON) -> str:
    if not isinstance(value, str):
        raise errors.InvalidQuery(f"{name} is compared with a string.")
    return value


def _number(name: str, value: values.JSON) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise errors.InvalidQuery(f"{name} is compared with a number.")
    return Decimal(value)


def _time(name: str, value: values.JSON) -> datetime:
    """Return a point in time in UTC (RFC 3339 §5.6), to the microsecond as it is stored."""
    problem = errors.InvalidQuery(
        f"{name} is compared with a time such as 2026-01-31T12:00:00.123456Z (RFC 3339)."
    )
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise problem
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise problem from None


_METADATA_VALUES: Final[dict[str, Callable[[str, values.JSON], str | Decimal | datetime]]] = {
    "$id": _text,
    "$version": _number,
    "$created_at": _time,
    "$updated_at": _time,
}
