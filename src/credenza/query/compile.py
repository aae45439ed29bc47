"""A query's tree into the fragments of the statements for lists and exports, all values bound.

Must not know how a query was written, nor send anything. What a client says is never part of the
SQL text, only of its arguments; field names and values reach PostgreSQL as jsonpath or JSON.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TypeAlias

from credenza import values
from credenza.query.tree import (
    And,
    Comparison,
    Field,
    Filter,
    Has,
    Metadata,
    MetadataComparison,
    Not,
    Position,
    Query,
    Sort,
    Target,
)

FIRST_ARGUMENT: Final = 2
"""$1 is the collection."""

SORTED_CHARACTERS: Final = 200
"""How much of a string decides about its place in an order."""

_SQL: Final = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_JSONPATH: Final = _SQL | {"eq": "=="}

_Tree: TypeAlias = dict[str, "_Tree"]
"""Selected keys, each with what is selected below it; nothing below it: all."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What fills the gaps of `list_documents`: SQL by gap, and the arguments from $2 on.

    `indexed` tells that the index on data finds what the filter is about.
    """

    fragments: dict[str, str]
    arguments: list[object]
    indexed: bool


@dataclass(frozen=True, slots=True)
class _Column:
    """A comparable expression of an order, which is never NULL.

    `type` is what its text is cast to, to compare it again; `text` makes this text, exactly.
    """

    expression: str
    type: str
    text: str = "{}::text"


_TIME: Final = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_METADATA: Final = {
    "$id": _Column("documents.id", "text"),
    "$version": _Column("documents.version", "numeric"),
    "$created_at": _Column("documents.created_at", "timestamptz", _TIME),
    "$updated_at": _Column("documents.updated_at", "timestamptz", _TIME),
}


def to_sql(query: Query, position: Position | None = None) -> Statement:
    """Return the statement for the page after a position, the first page without one.

    Each row then has `position`, a list of text: where a page ends that ends with this row.
    """
    compiler = _Compiler()
    ordered = [(column, sort.descending) for sort in query.order for column in compiler.sort(sort)]
    named = [(f"key{number}", *each) for number, each in enumerate(ordered)]
    conditions = [compiler.predicate(query.filter)]
    if position is not None:
        conditions.append(compiler.after(ordered, position))
    gaps = {
        "select": compiler.selection(query.select),
        "where": " AND ".join(conditions),
        "keys": ", ".join(f"{column.expression} AS {name}" for name, column, _ in named),
        "order": ", ".join(f"{name} {'DESC' if down else 'ASC'}" for name, _, down in named),
        "position": f"ARRAY[{', '.join(column.text.format(name) for name, column, _ in named)}]",
    }
    return Statement(gaps, compiler.arguments, _is_indexed(query.filter))


class _Compiler:
    """Writes SQL and gathers the arguments that it refers to."""

    def __init__(self) -> None:
        self.arguments: list[object] = []

    def _bind(self, value: object, type_: str) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments) + FIRST_ARGUMENT - 1}::{type_}"

    # Filters

    def predicate(self, node: Filter) -> str:
        """Return a condition; NULL stands for false wherever nothing negates it."""
        match node:
            case And(filters):
                return " AND ".join(self.predicate(each) for each in filters) or "true"
            case Not(negated):
                return f"NOT coalesce({self.predicate(negated)}, false)"
            case Has(target):
                return self._has(target)
            case MetadataComparison(metadata, operator, value):
                column = _METADATA[metadata.name]
                return f"{column.expression} {_SQL[operator]} {self._bind(value, column.type)}"
            case Comparison(field, "eq", list() | dict() as value):
                return self._container(field.steps, value)
            case Comparison(field, operator, value):
                comparison = f"{_JSONPATH[operator]} {values.encode(value)}"
                return self._scalar(operator, f"{_path(field.steps)} {comparison}")

    def _has(self, target: Target) -> str:
        if isinstance(target, Metadata):
            return "true"
        path = self._bind(_path(target.steps), "jsonpath")
        return f"jsonb_path_exists(documents.data, {path}, '{{}}', true)"

    def _scalar(self, operator: str, predicate: str) -> str:
        """Return a jsonpath predicate as a condition.

        Only equality is an operator that the index answers: for the others it would be read whole.
        """
        path = self._bind(predicate, "jsonpath")
        if operator == "eq":
            return f"documents.data @@ (SELECT {path})"
        return f"jsonb_path_match(documents.data, {path}, '{{}}', true)"

    def _container(self, steps: tuple[str, ...], value: values.JSON) -> str:
        """Return the equality of an array or object; being contained is what the index answers."""
        equal = f"{self._at(steps)} = {self._bind(values.encode(value), 'jsonb')}"
        if not value:
            return equal
        for step in reversed(steps):
            value = {step: value}
        return f"{equal} AND documents.data @> {self._bind(values.encode(value), 'jsonb')}"

    def _at(self, steps: tuple[str, ...]) -> str:
        """Return the value at a path, NULL where there is none."""
        path = self._bind(_path(steps), "jsonpath")
        return f"jsonb_path_query_first(documents.data, {path}, '{{}}', true)"

    # Order

    def sort(self, sort: Sort) -> Sequence[_Column]:
        """Return what a key compares: for a field its type's rank, its number, its string."""
        if isinstance(sort.target, Metadata):
            return (_METADATA[sort.target.name],)
        value = self._at(sort.target.steps)
        kind = f"jsonb_typeof({value})"
        rank = (
            f"(CASE {kind} WHEN 'boolean' THEN 1 WHEN 'number' THEN 2 WHEN 'string' THEN 3"
            " WHEN 'array' THEN 4 WHEN 'object' THEN 4 ELSE 0 END)"
        )
        number = (
            f"(CASE {kind} WHEN 'number' THEN ({value})::numeric"
            f" WHEN 'boolean' THEN ({value})::boolean::int::numeric ELSE 0 END)"
        )
        string = (
            f"(CASE {kind} WHEN 'string' THEN left({value} #>> '{{}}', {SORTED_CHARACTERS})"
            " ELSE '' END COLLATE \"C\")"
        )
        return (
            _Column(rank, "int"),
            _Column(number, "numeric"),
            _Column(string, "text"),
        )

    def after(self, ordered: Iterable[tuple[_Column, bool]], position: Position) -> str:
        """Return the condition that a row comes after a position.

        Neighbours of one direction are compared as rows; where the direction changes, a row comes
        after if it is equal up to there and later in what follows.
        """
        bound = [
            (column.expression, self._bind(text, f"text::{column.type}"), descending)
            for (column, descending), text in zip(ordered, position, strict=True)
        ]
        equal, ways = "", []
        for descending, group in groupby(bound, key=lambda each: each[2]):
            expressions, places, _ = zip(*group, strict=True)
            left, right = f"({', '.join(expressions)})", f"({', '.join(places)})"
            ways.append(f"{equal}{left} {'<' if descending else '>'} {right}")
            equal += f"{left} = {right} AND "
        return f"({' OR '.join(ways)})"

    # Selection

    def selection(self, select: Sequence[Field] | None) -> str:
        """Return the selected part of a document, `{}` where nothing selected is there."""
        if select is None or Field(()) in select:
            return "documents.data"
        return f"coalesce({self._object(_tree(select), ())}, '{{}}')"

    def _object(self, tree: _Tree, steps: tuple[str, ...]) -> str:
        """Return an object of what is there, NULL where nothing is."""
        keys = self._bind(list(tree), "text[]")
        found = ", ".join(
            self._object(below, (*steps, key)) if below else self._at((*steps, key))
            for key, below in tree.items()
        )
        return (
            f"(SELECT jsonb_object_agg(part.key, part.value) FROM unnest({keys}, ARRAY[{found}])"
            " AS part (key, value) WHERE part.value IS NOT NULL)"
        )


def _is_indexed(node: Filter) -> bool:
    """Return whether a condition is one, or has one among others, that the index answers."""
    match node:
        case And(filters):
            return any(_is_indexed(each) for each in filters)
        case Comparison(_, "eq", list() | dict() as value):
            return bool(value)
        case Comparison(_, operator, _):
            return operator == "eq"
        case _:
            return False


def _path(steps: Iterable[str]) -> str:
    """Return a jsonpath; strict, because lax would look into arrays."""
    return "strict $" + "".join(f".{values.encode(step)}" for step in steps)


def _tree(select: Sequence[Field]) -> _Tree:
    """Return selected paths by their keys; a path includes all below it."""
    root: _Tree = {}
    for target in sorted(select, key=lambda each: len(each.steps)):
        tree = root
        for step in target.steps[:-1]:
            if step in tree and not tree[step]:
                break
            tree = tree.setdefault(step, {})
        else:
            tree.setdefault(target.steps[-1], {})
    return root
