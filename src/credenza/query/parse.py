"""URL parameters into a query: `age=gte.18&order=age.desc,$id&select=name&limit=50`.

Must not know SQL. Percent-decoding is the caller's. Whatever is wrong is an InvalidQuery.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, cast, get_args

from credenza import errors, values
from credenza.query import paths
from credenza.query.tree import (
    And,
    Field,
    Filter,
    Has,
    Metadata,
    Not,
    Operator,
    Query,
    Sort,
    Target,
    View,
    comparison,
)
from credenza.settings import MAX_GROWTH

MAX_LIMIT: Final = 1000
MAX_TERMS: Final = 32
MAX_SORTS: Final = 5
MAX_SELECTED: Final = 64
MAX_SELECTED_STEPS: Final = 256
"""Each step costs a part of the statement, which takes time to plan."""

MAX_BYTES: Final = 8192
"""Length of a parameter's name, and of its value, in UTF-8."""

MAX_DEPTH: Final = 32
"""Nesting of a value to compare with."""

RESERVED: Final = frozenset(
    ("and", "or", "not.and", "not.or", "count", "at", "version", "since", "explain", "atomic")
) | {"where"}
"""Parameters that are kept for later; as fields they are written `data.count`."""


def parse(pairs: Sequence[tuple[str, str]]) -> Query:
    """Return the query that decoded parameters, in their order, ask for."""
    for pair in pairs:
        _check(pair)
    given = Counter(name for name, _ in pairs if name in _SETTINGS)
    for name, times in given.items():
        if times > 1:
            raise errors.InvalidQuery(f"{name} is given {times} times.")
    settings = {name: _SETTINGS[name](text) for name, text in pairs if name in _SETTINGS}
    return Query(
        filter=_filter([pair for pair in pairs if pair[0] not in _SETTINGS]),
        **settings,  # type: ignore[arg-type]  # each reader returns the type of its name
    )


def _check(pair: tuple[str, str]) -> None:
    """Refuse what is too long or not text that PostgreSQL can hold."""
    for text in pair:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise errors.InvalidQuery("A parameter is not valid UTF-8.") from None
        if size > MAX_BYTES:
            raise errors.InvalidQuery(f"A parameter is longer than {MAX_BYTES} bytes.")
        if "\0" in text:
            raise errors.InvalidQuery("A parameter contains U+0000.")


# Filters


def _filter(pairs: Sequence[tuple[str, str]]) -> And:
    if len(pairs) > MAX_TERMS:
        raise errors.InvalidQuery(f"A query has at most {MAX_TERMS} filters.")
    return And(tuple(_term(name, text) for name, text in pairs))


def _term(name: str, text: str) -> Filter:
    if name in RESERVED:
        raise errors.InvalidQuery(
            f"The name {name} is reserved; a field so named is written data.{name}."
        )
    found = paths.split(name)
    if len(found) > 1:
        raise errors.InvalidQuery(f"{paths.shown(name)} names more than one field.")
    target = paths.target(found[0])
    positive = text.removeprefix("not.")
    leaf = _leaf(name, target, positive)
    return leaf if positive == text else Not(leaf)


def _leaf(name: str, target: Target, text: str) -> Filter:
    operator, dot, rest = text.partition(".")
    if operator == "has" and not dot:
        return Has(target)
    if not dot or operator not in _OPERATORS:
        raise errors.InvalidQuery(
            f"{paths.shown(name)}: {paths.shown(operator)} is no operator with a value; there are "
            f"{', '.join(f'{known}.<value>' for known in _OPERATORS)} and has, all also after not."
        )
    if operator == "neq":
        return Not(comparison(target, "eq", _value(target, rest)))
    return comparison(target, cast("Operator", operator), _value(target, rest))


_OPERATORS: Final = ("eq", "neq", *get_args(Operator)[1:])


def _value(target: Target, text: str) -> values.JSON:
    """Return the value that a text stands for: JSON if it parses as JSON, else the text itself.

    An id is always a string, so that `$id=eq.5` finds the document 5.
    """
    try:
        checked = values.check(text.encode(), max_depth=MAX_DEPTH, max_text=MAX_GROWTH * MAX_BYTES)
    except errors.MalformedJson:
        return text
    except errors.UnrepresentableJson as problem:
        raise errors.InvalidQuery(
            f"{paths.shown(text)} cannot be stored: {problem.detail}"
        ) from None
    value = values.decode(checked)
    return text if target == Metadata("$id") and not isinstance(value, str) else value


# Everything else


def _limit(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise errors.InvalidQuery(f"limit is a number from 1 to {MAX_LIMIT}.")
    return int(text)


def _view(text: str) -> View:
    if text not in get_args(View):
        raise errors.InvalidQuery(f"view is one of {', '.join(get_args(View))}.")
    return cast("View", text)


def _select(text: str) -> tuple[Field, ...]:
    found = paths.split(text)
    if len(found) > MAX_SELECTED or sum(map(len, found)) > MAX_SELECTED_STEPS:
        raise errors.InvalidQuery(
            f"select takes at most {MAX_SELECTED} fields, of {MAX_SELECTED_STEPS} steps in all."
        )
    selected = tuple(map(paths.target, found))
    fields = tuple(target for target in selected if isinstance(target, Field))
    if len(fields) < len(selected):
        raise errors.InvalidQuery("select chooses from data; metadata are not part of it.")
    return fields


def _order(text: str) -> tuple[Sort, ...]:
    """Return the sort keys; the id is always the last, so that no two documents are equal."""
    sorts = [_sort(steps) for steps in paths.split(text)]
    targets = [sort.target for sort in sorts]
    if len(sorts) > MAX_SORTS or len(set(targets)) < len(targets):
        raise errors.InvalidQuery(f"order takes at most {MAX_SORTS} fields, each once.")
    last = Metadata("$id")
    if last in targets:
        return tuple(sorts[: targets.index(last) + 1])
    return (*sorts, Sort(last))


def _sort(steps: list[paths.Step]) -> Sort:
    direction = steps[-1]
    if len(steps) > 1 and direction.bare and direction.key in {"asc", "desc"}:
        return Sort(paths.target(steps[:-1]), descending=direction.key == "desc")
    return Sort(paths.target(steps))


_SETTINGS: Final[dict[str, Callable[[str], object]]] = {
    "select": _select,
    "order": _order,
    "limit": _limit,
    "cursor": str,
    "view": _view,
}
