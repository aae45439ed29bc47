"""What tests of queries share: an independent model of their meaning, and a store to ask."""

import asyncio
import importlib.util
import json
import string
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
from hypothesis import strategies as st

from credenza import query, sql, values
from credenza.database import Database
from credenza.settings import Settings
from credenza.snapshots import FEW, Snapshots
from credenza.telemetry import Metrics
from servers import Postgres, until

T = TypeVar("T")
Pairs = list[tuple[str, str]]

START = datetime(2026, 1, 1, tzinfo=UTC)
MISSING = ()
CURSORS = query.Cursors(["new", "old"])
QUERIES = sql.load()


def lookup(data: Any, steps: Sequence[str]) -> Any:
    """Return what lies at a path; arrays are never looked into."""
    for step in steps:
        if not isinstance(data, dict) or step not in data:
            return MISSING
        data = data[step]
    return data


def frozen(value: Any) -> tuple[str, Any]:
    """Return a value with its type's name, so that true is not 1 and 1 is 1.0."""
    if isinstance(value, dict):
        return "object", frozenset((key, frozen(each)) for key, each in value.items())
    if isinstance(value, list):
        return "array", tuple(map(frozen, value))
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return "number", Decimal(value)
    return type(value).__name__, value


def holds(operator: str, found: Any, value: Any) -> bool:
    """Return whether a leaf holds of what lies at its path."""
    (kind, left), (other, right) = frozen(found), frozen(value)
    if operator == "has":
        return found is not MISSING
    if operator == "neq":
        return not holds("eq", found, value)
    if operator in {"eq", "gte", "lte"} and (kind, left) == (other, right):
        return operator == "eq" or kind not in {"array", "object"}
    if kind != other or kind not in {"bool", "number", "str"}:
        return False
    return bool(left > right if operator in {"gt", "gte"} else left < right) and operator != "eq"


def place(value: Any) -> tuple[int, Decimal, str]:
    """Return what decides about a value's place in an order."""
    kind, _ = frozen(value)
    rank = {"bool": 1, "number": 2, "str": 3, "array": 4, "object": 4}.get(kind, 0)
    number = Decimal(value) if kind in {"bool", "number"} else Decimal(0)
    return rank, number, value[:200] if kind == "str" else ""


def selected(data: Any, paths: Sequence[Sequence[str]]) -> Any:
    """Return a document with what lies at some paths alone."""
    if [] in paths:
        return data
    result: dict[str, Any] = {}
    for key in data if isinstance(data, dict) else ():
        below = [path[1:] for path in paths if path[0] == key]
        if not below:
            continue
        part = selected(data[key], below)
        if [] in below or part:
            result[key] = part
    return result


KEYS = ["a", "b", "0", "data", "$id", "a.b", "", 'é"\\\n', "😀", "limit"]
WORDS = ["", "a", "B", "b", "Z", "\uffff", "😀", "18", "true", "\x01\x7f", '"; --', "\\", "a" * 250]
NUMBERS = [0, 1, Decimal("1.0"), -1, Decimal("0.1"), Decimal("1E+400"), Decimal("-1E-400"), 2**70]
keys = st.sampled_from(KEYS)
words = st.sampled_from(WORDS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3
)
scalars: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.integers(0, 3) | words
)
jsons = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)
documents = st.lists(
    st.dictionaries(st.sampled_from(KEYS[:3]), jsons, max_size=3) | jsons, min_size=1, max_size=12
)
paths = st.lists(st.sampled_from(KEYS[:3]), min_size=1, max_size=2) | st.lists(keys, max_size=3)


def name_of(steps: Sequence[str]) -> str:
    """Return a path as it is written."""
    return ".".join(["data", *(json.dumps(step) for step in steps)])


def page_of(statement: query.Statement, limit: int, few: int = FEW) -> str:
    """Return the text of the statement of a page of so many rows."""
    number = len(statement.arguments)
    gaps = {**statement.fragments, "limit": limit, "max_bytes": number + 2, "few": few}
    found = QUERIES["found_by_index" if statement.indexed else "found_in_order"].format(**gaps)
    return QUERIES["list_documents"].format(**gaps, found=found)


class Bench:
    """A store with a loop of its own, so that the examples of a test share connections."""

    def __init__(
        self,
        server: Postgres,
        name: str,
        *changes: str,
        few: int = FEW,
        indexed: Sequence[str] = (),
    ) -> None:
        self._few = few
        self._indexed = indexed
        self._made: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._collections = 0
        until(lambda: "ready to accept connections" in server.log(), "PostgreSQL")
        self.run(make(server, name, changes))
        self.run(self._open(server.database(name)))

    async def _open(self, url: str) -> None:
        self.raw: asyncpg.Connection = await asyncpg.connect(url)
        metrics = Metrics()
        self._database = Database(Settings(database_pool_size=1), url=url, metrics=metrics)
        self._snapshots = Snapshots(self._database, metrics, self._few)
        await self._database.open()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for it."""
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        """End everything."""
        self.run(self._database.close())
        self.run(self.raw.close())
        self._loop.close()

    def load(self, documents: Sequence[values.JSON]) -> str:
        """Store documents in a new collection; ids are letters from Z down, versions repeat."""
        self._collections += 1
        name = f"c{self._collections}"
        rows = [metadata_of(number) for number in range(len(documents))]
        self.run(
            self.raw.execute(
                "INSERT INTO collections VALUES ($1, 1, 1, now(), now(), '{}', true)", name
            )
        )
        self.run(
            self.raw.execute(
                "INSERT INTO documents SELECT $1, id, 1, version, created_at, created_at, data"
                " FROM unnest($2::text[], $3::bigint[], $4::timestamptz[], $5::text[]::jsonb[])"
                " AS new (id, version, created_at, data)",
                name,
                [row["$id"] for row in rows],
                [row["$version"] for row in rows],
                [row["$created_at"] for row in rows],
                [values.encode(data) for data in documents],
            )
        )
        self._index(name)
        return name

    def _index(self, collection: str) -> None:
        """Make the collection's indexes instead of the last one's."""
        for name in self._made:
            self.run(self.raw.execute(QUERIES["drop_index"].format(name=name)))
        wanted = query.definitions(query.indexes(collection, self._indexed))
        for name, (columns, condition) in wanted.items():
            gaps = {"name": name, "columns": columns, "condition": condition}
            self.run(self.raw.execute(QUERIES["create_index"].format(**gaps)))
        self._made = set(wanted)

    def page(
        self, collection: str, pairs: Pairs, position: query.Position | None = None
    ) -> tuple[list[asyncpg.Record], bool]:
        """Return the rows of a page, and whether there are more."""
        wanted = query.parse(pairs)
        statement = query.to_sql(
            wanted,
            position or CURSORS.read(wanted, collection),
            query.indexes(collection, self._indexed),
        )
        rows, more, _ = self.run(self._snapshots.page(collection, statement, wanted.limit, 1 << 30))
        return rows, more

    def ids(self, collection: str, *pairs: tuple[str, str]) -> str:
        """Return the ids that a query finds, in a row."""
        return "".join(str(row["id"]) for row in self.page(collection, list(pairs))[0])


def metadata_of(number: int) -> dict[str, Any]:
    """Return what the service would keep of the document of that number."""
    return {
        "$id": string.ascii_letters[-1 - number],
        "$version": 1 + number % 3,
        "$created_at": START + timedelta(microseconds=number % 2),
    }


async def make(server: Postgres, name: str, changes: Sequence[str]) -> None:
    """Make a database with the schema, and change it."""
    schema = [statement for path in sorted(VERSIONS.glob("[0-9]*.py")) for statement in made(path)]
    connection = await asyncpg.connect(server.url)
    # It is there where a module's tests were spread, so that its fixtures are made again.
    await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    connection = await asyncpg.connect(server.database(name))
    for statement in (*schema, *changes):
        await connection.execute(statement)
    await connection.close()


VERSIONS = Path(sql.__file__).parent / "migrations" / "versions"


def made(path: Path) -> tuple[str, ...]:
    """Return the statements of a revision that make the schema's objects."""
    spec = importlib.util.spec_from_file_location(f"revision_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    migration = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(migration)
    statements: tuple[str, ...] = migration.UPGRADE
    return statements
