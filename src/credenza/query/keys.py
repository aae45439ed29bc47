"""What an order compares: the SQL columns of a field or of metadata; an index has the same ones.

Must not know queries. PostgreSQL finds by an index of an expression what is written just like it,
so both come from here; a field's path is then a literal, for an index is not of an argument.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from credenza import errors, values
from credenza.query import paths
from credenza.query.tree import Field, Metadata, Target

SORTED_CHARACTERS: Final = 200
"""How much of a string decides about its place in an order."""

INDEX_PREFIX: Final = "documents_by_"
"""What the names of the indexes begin with that settings of collections ask for."""


class Column(NamedTuple):
    """A comparable expression of an order, which is never NULL.

    `type` is what its text is cast to, to compare it again; `text` makes this text, exactly.
    """

    expression: str
    type: str
    text: str = "{}::text"


class FieldColumns(NamedTuple):
    """What a field is compared by, in this order; all three are there for every value."""

    rank: Column
    number: Column
    string: Column


_TIME: Final = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

METADATA: Final = {
    "$id": Column("documents.id", "text"),
    "$version": Column("documents.version::numeric", "numeric"),
    "$created_at": Column("documents.created_at", "timestamptz", _TIME),
    "$updated_at": Column("documents.updated_at", "timestamptz", _TIME),
}

RANKS: Final = {"boolean": 1, "number": 2, "string": 3, "array": 4, "object": 4}
"""The order of JSON types; what is missing, and null, comes first."""


@dataclass(frozen=True, slots=True)
class Indexes:
    """What a collection has indexes of, whether PostgreSQL has made them already or not."""

    collection: str = ""
    targets: frozenset[Target] = frozenset()


NO_INDEXES: Final = Indexes()


def indexes(collection: str, names: Iterable[str]) -> Indexes:
    """Return the indexes that a collection's settings name; InvalidQuery for what is none."""
    return Indexes(collection, frozenset(_target(name) for name in names))


def _target(name: str) -> Target:
    found = paths.split(name)
    if len(found) > 1:
        raise errors.InvalidQuery(f"{paths.shown(name)} names more than one field.")
    target = paths.target(found[0])
    if target == Metadata("$id"):
        raise errors.InvalidQuery("Of $id there is an index already.")
    return target


def definitions(asked: Indexes) -> dict[str, tuple[str, str]]:
    """Return the columns and the condition of each index by its name.

    The name is a hash of all that the index consists of: another definition is another index.
    """
    condition = f"documents.collection = {literal(asked.collection)} AND documents.data IS NOT NULL"
    found = {}
    for target in asked.targets:
        columns = ", ".join(f"({column.expression})" for column in (*of(target), METADATA["$id"]))
        digest = hashlib.sha256(f"{condition}\n{columns}".encode()).hexdigest()
        found[f"{INDEX_PREFIX}{digest[:24]}"] = (columns, condition)
    return found


def of(target: Target) -> Sequence[Column]:
    """Return what an index of a target has before the id."""
    if isinstance(target, Metadata):
        return (METADATA[target.name],)
    return of_field(target)


def of_field(field: Field) -> FieldColumns:
    """Return the columns of a field, its path being part of the text."""
    return of_value(value_at(f"{literal(path(field.steps))}::jsonpath"))


def of_value(value: str) -> FieldColumns:
    """Return the columns of an expression for a JSON value, which is NULL where there is none."""
    kind = f"jsonb_typeof({value})"
    ranks = " ".join(f"WHEN '{name}' THEN {rank}" for name, rank in RANKS.items())
    number = (
        f"(CASE {kind} WHEN 'number' THEN ({value})::numeric"
        f" WHEN 'boolean' THEN ({value})::boolean::int::numeric ELSE 0 END)"
    )
    string = (
        f"(CASE {kind} WHEN 'string' THEN left({value} #>> '{{}}', {SORTED_CHARACTERS})"
        " ELSE '' END COLLATE \"C\")"
    )
    return FieldColumns(
        Column(f"(CASE {kind} {ranks} ELSE 0 END)", "int"),
        Column(number, "numeric"),
        Column(string, "text"),
    )


def value_at(path: str) -> str:
    """Return the value at a path, an expression, as an expression: NULL where there is none."""
    return f"jsonb_path_query_first(documents.data, {path}, '{{}}', true)"


def path(steps: Iterable[str]) -> str:
    """Return a jsonpath; strict, because lax would look into arrays."""
    return "strict $" + "".join(f".{values.encode(step)}" for step in steps)


def literal(text: str) -> str:
    """Return a text as a literal of SQL, whatever it holds (PostgreSQL 4.1.2.2)."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
