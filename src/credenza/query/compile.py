"""A query's tree into the fragments of the statements for lists and exports, all values bound.

Must not know how a query was written, nor send anything. What a client says is never part of the
SQL text, only of its arguments; field names and values reach PostgreSQL as jsonpath or JSON.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Final, TypeAlias, TypeGuard

from credenza import values
from credenza.query import keys
from credenza.query.keys import METADATA, NO_INDEXES, Column, Indexes
from credenza.query.tree import (
    And,
    Comparison,
    Field,
    Filter,
    Has,
    Metadata,
    MetadataComparison,
    Not,
    Operator,
    Position,
    Query,
    Sort,
    Target,
)

FIRST_ARGUMENT: Final = 2
"""$1 is the collection."""

_SQL: Final = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_JSONPATH: Final = _SQL | {"eq": "=="}

_Tree: TypeAlias = dict[str, "_Tree"]
"""Selected keys, each with what is selected below it; nothing below it: all."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What fills the gaps of `list_documents`: SQL by gap, and the arguments from $2 on.

    `indexed` tells that an index finds what the filter is about, in another order than asked for.
    """

    fragments: dict[str, str]
    arguments: list[object]
    indexed: bool


def to_sql(
    query: Query, position: Position | None = None, indexes: Indexes = NO_INDEXES
) -> Statement:
    """Return the statement for the page after a position, the first page without one.

    Each row then has `position`, a list of text: where a page ends that ends with this row.
    """
    compiler = _Compiler(indexes)
    ordered = [(column, sort.descending) for sort in query.order for column in compiler.sort(sort)]
    named = [(f"key{number}", *each) for number, each in enumerate(ordered)]
    among = ["true"]
    if indexes.targets:
        among.append(f"documents.collection = {keys.literal(indexes.collection)}")
    if position is not None:
        among.append(compiler.after(ordered, position))
    found = _found_by(query, indexes)
    gaps = {
        "select": compiler.selection(query.select),
        "where": compiler.predicate(query.filter),
        "among": " AND ".join(among),
        "keys": ", ".join(f"{column.expression} AS {name}" for name, column, _ in named),
        "order": ", ".join(f"{name} {'DESC' if down else 'ASC'}" for name, _, down in named),
        "position": f"ARRAY[{', '.join(column.text.format(name) for name, column, _ in named)}]",
        "nearest": f"ORDER BY {', '.join(each.expression for each in found)}" if found else "",
    }
    return Statement(gaps, compiler.arguments, found is not None)


class _Compiler:
    """Writes SQL and gathers the arguments that it refers to."""

    def __init__(self, indexes: Indexes) -> None:
        self.arguments: list[object] = []
        self._indexed = indexes.targets

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
                column = METADATA[metadata.name]
                return f"{column.expression} {_SQL[operator]} {self._bind(value, column.type)}"
            case Comparison():
                return self._comparison(node)

    def _comparison(self, node: Comparison) -> str:
        field, operator, value = node.field, node.operator, node.value
        if isinstance(value, list | dict):
            return self._container(field.steps, value)
        if operator != "eq" and field in self._indexed and _has_place(value):
            return self._range(field, operator, value)
        return self._scalar(
            operator, f"{keys.path(field.steps)} {_JSONPATH[operator]} {values.encode(value)}"
        )

    def _has(self, target: Target) -> str:
        if isinstance(target, Metadata):
            return "true"
        path = self._bind(keys.path(target.steps), "jsonpath")
        return f"jsonb_path_exists(documents.data, {path}, '{{}}', true)"

    def _scalar(self, operator: str, predicate: str) -> str:
        """Return a jsonpath predicate as a condition.

        Only equality is an operator that the index answers: for the others it would be read whole.
        """
        path = self._bind(predicate, "jsonpath")
        if operator == "eq":
            return f"documents.data @@ {_hidden(path)}"
        return f"jsonb_path_match(documents.data, {path}, '{{}}', true)"

    def _range(self, field: Field, operator: Operator, value: str | Decimal | int) -> str:
        """Return an inequality as an index of the field has it.

        What is too long for the index is looked for with its beginning, and then compared whole.
        """
        rank, number, string = keys.of_field(field)
        if not isinstance(value, str):
            place = _hidden(self._bind(str(value), f"text::{number.type}"))
            return (
                f"{rank.expression} = {keys.RANKS['number']}"
                f" AND {number.expression} {_SQL[operator]} {place}"
            )
        is_whole = len(value) < keys.SORTED_CHARACTERS
        nearly = _SQL[operator] if is_whole else f"{_SQL[operator][0]}="
        place = _hidden(self._bind(value[: keys.SORTED_CHARACTERS], string.type))
        found = (
            f"{rank.expression} = {keys.RANKS['string']} AND {number.expression} = 0"
            f" AND {string.expression} {nearly} {place}"
        )
        if is_whole:
            return found
        comparison = f"{_JSONPATH[operator]} {values.encode(value)}"
        return f"{found} AND {self._scalar(operator, f'{keys.path(field.steps)} {comparison}')}"

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
        return keys.value_at(self._bind(keys.path(steps), "jsonpath"))

    # Order

    def sort(self, sort: Sort) -> Sequence[Column]:
        """Return what a key compares."""
        target = sort.target
        if isinstance(target, Metadata) or target in self._indexed:
            return keys.of(target)
        return keys.of_value(self._at(target.steps))

    def after(self, ordered: Iterable[tuple[Column, bool]], position: Position) -> str:
        """Return the condition that a row comes after a position.

        Neighbours of one direction are compared as rows; where the direction changes, a row comes
        after if it is equal up to there and later in what follows. Then the first of them are also
        compared alone, which is what an index can begin at.
        """
        bound = [
            (column.expression, self._bind(text, f"text::{column.type}"), descending)
            for (column, descending), text in zip(ordered, position, strict=True)
        ]
        equal, ways, begins = "", [], ""
        for descending, group in groupby(bound, key=lambda each: each[2]):
            expressions, places, _ = zip(*group, strict=True)
            left, right = f"({', '.join(expressions)})", f"({', '.join(places)})"
            later = "<" if descending else ">"
            begins = begins or f"{left} {later}= {right}"
            ways.append(f"{equal}{left} {later} {right}")
            equal += f"{left} = {right} AND "
        return ways[0] if len(ways) == 1 else f"{begins} AND ({' OR '.join(ways)})"

    # Selection

    def selection(self, select: Sequence[Field] | None) -> str:
        """Return the selected part of a document, `{}` where nothing selected is there."""
        if select is None or Field(()) in select:
            return "documents.data"
        return f"coalesce({self._object(_tree(select), ())}, '{{}}')"

    def _object(self, tree: _Tree, steps: tuple[str, ...]) -> str:
        """Return an object of what is there, NULL where nothing is."""
        names = self._bind(list(tree), "text[]")
        found = ", ".join(
            self._object(below, (*steps, key)) if below else self._at((*steps, key))
            for key, below in tree.items()
        )
        return (
            f"(SELECT jsonb_object_agg(part.key, part.value) FROM unnest({names}, ARRAY[{found}])"
            " AS part (key, value) WHERE part.value IS NOT NULL)"
        )


def may_use_indexes(query: Query) -> bool:
    """Return whether a query compares or orders by what a collection can have an index of."""
    return query.order[0].target != Metadata("$id") or any(_ranges(query.filter))


def _hidden(argument: str) -> str:
    """Return an argument that PostgreSQL plans without, so that one plan does for all values."""
    return f"(SELECT {argument})"


def _has_place(value: values.JSON) -> TypeGuard[str | Decimal | int]:
    """Return whether an index of a field has such values in a row."""
    return isinstance(value, str | Decimal | int) and not isinstance(value, bool)


def _found_by(query: Query, indexes: Indexes) -> Sequence[Column] | None:
    """Return in which order an index gives what the filter is about, nothing: in none.

    None where no index finds it, or the one that the order needs.
    """
    if _has_equality(query.filter):
        return ()
    wanted = [target for target in _ranges(query.filter) if target in indexes.targets]
    if not wanted or query.order[0].target in wanted:
        return None
    return keys.of(wanted[0])


def _has_equality(node: Filter) -> bool:
    """Return whether a condition is one, or has one, that the index on data answers."""
    match node:
        case And(filters):
            return any(_has_equality(each) for each in filters)
        case Comparison(_, "eq", list() | dict() as value):
            return bool(value)
        case Comparison(_, operator, _):
            return operator == "eq"
        case _:
            return False


def _ranges(node: Filter) -> Iterable[Target]:
    """Yield what is compared with a value that an index has in a row."""
    match node:
        case And(filters):
            for each in filters:
                yield from _ranges(each)
        case Comparison(field, operator, value) if operator != "eq" and _has_place(value):
            yield field
        case MetadataComparison(metadata, _, _):
            yield metadata


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
