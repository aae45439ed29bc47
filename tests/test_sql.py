"""The rules of the SQL: one collection a statement, nothing volatile, in one place.

Then an engine that shards by collection can take over. Stand-in for it: the same schema with every
table partitioned by a hash of the collection, where a statement may touch one partition a table.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import credenza
from credenza import query, sql
from credenza.snapshots import FEW
from databases import connected, create_migrated
from querying import page_of
from servers import Postgres

QUERIES = sql.load()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHARDS = 8

SAMPLES: dict[str, list[Any]] = {
    "get_documents": ["c", ["a", "b"]],
    "insert_documents": ["c", 9, NOW, ["new", "newer"], ["1", "2"], 3],
    "put_document": ["c", "a", 9, NOW, "1", ["3"], False, NOW, 3],
    "put_documents": [
        *("c", 9, NOW, ["a", "b", "new"], ["1", "2", "3"], ["false", "true", "false"]),
        *([None, "{1}", None], ["{3}", None, None], ["false", "false", "true"]),
        *([None, None, None], 3),
    ],
    "replace_document": ["c", "a", 9, NOW, "1", None, None, 3],
    "lock_document": ["c", "a"],
    "delete_document": ["c", "a", 9, NOW, None, None, None, 3],
    "delete_documents": ["c", 9, NOW, ["a", "b"], ["{1}", None], [None, None], [None, None], 3],
    "import_documents": ["c", 9, NOW, "a\x1enew", "1\x1e2", "\x1e", True, 2, 3],
    "reap_tombstones": ["c", NOW, 10],
    "purge_documents": ["c", 10],
    "get_state": ["c"],
    "get_collection": ["c"],
    "create_collection": ["new", 9, NOW],
    "put_collection": ["c", 9, NOW, "{}", None, None, None],
    "lock_collection": ["c"],
    "delete_collection": ["c", 9, NOW, None, None],
    "get_purged": ["c"],
    "set_purged": ["c", 5],
    "add_to_catalog": ["_catalog", "new"],
    "list_catalog": ["_catalog", "", 10],
    "add_secret": ["_system", "new", "key"],
    "get_secret": ["_system", "cursor"],
}
"""Arguments for each statement; all but one find or write a row. Those with gaps are below."""

KEYLESS = {
    *("get_revision", "get_durability", "read_export"),
    *("list_indexed", "list_indexes", "create_index", "drop_index"),
}
"""Sent to a node, not to a collection; `read_export` to where its transaction is already."""

GAPPED = ("list_documents", "found_in_order", "found_by_index", "open_export", "read_large")
"""Statements with gaps that a query, or one of two of these, fills."""

LISTS = [
    [],
    [("a", "eq.1"), ("order", "$id.desc")],
    [("a", "gt.0"), ("a", 'neq."x"'), ("order", "n.desc,a,$updated_at.desc"), ("select", "a,n.b")],
    [("$version", "gte.1"), ("$id", "neq.x"), ("order", "$created_at")],
    [("o", 'eq.{"b":[1]}'), ("not.there", "not.has"), ("order", "$version.desc,a")],
]
"""Queries that find several rows of the sample, so that each has a second page."""


def prepared(
    pairs: list[tuple[str, str]],
    place: query.Position | None = None,
    limit: int = 2,
    few: int = FEW,
    indexes: query.Indexes = query.NO_INDEXES,
) -> tuple[str, list[Any]]:
    """Return the statement of a page, and its arguments, as the store sends it."""
    part = query.to_sql(query.parse(pairs), place, indexes)
    return page_of(part, limit, few), ["c", *part.arguments, 1 << 20]


def opened(pairs: list[tuple[str, str]]) -> tuple[str, list[Any]]:
    """Return the statement that opens an export, and its arguments, as `bulk` sends it."""
    part = query.to_sql(query.parse(pairs))
    return QUERIES["open_export"].format(**part.fragments, max_bytes=9), ["c", *part.arguments]


ONE = ("$id", "eq.a")
INTO = "INSERT INTO documents (collection, id, incarnation, version, created_at, updated_at)"

# One collection a statement


@pytest.fixture
async def sharded(postgres: Postgres) -> AsyncIterator[asyncpg.Connection]:
    """Connect to a database whose tables are partitioned by collection; roll back at the end."""
    name = await create_migrated(postgres)
    async with connected(postgres, name) as connection:
        for table in await tables(connection):
            await connection.execute(f"""
                ALTER TABLE {table} RENAME TO whole_{table};
                CREATE TABLE {table} (LIKE whole_{table} INCLUDING ALL)
                    PARTITION BY HASH (collection);
                DROP TABLE whole_{table}""")
            for number in range(SHARDS):
                await connection.execute(
                    f"CREATE TABLE {table}_{number} PARTITION OF {table}"
                    f" FOR VALUES WITH (MODULUS {SHARDS}, REMAINDER {number})"
                )
        await connection.execute(DATA)
        yield connection


async def tables(connection: asyncpg.Connection) -> list[str]:
    """Return the tables with documents and what belongs to them."""
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind = 'r' AND relname <> 'alembic_version' ORDER BY 1"
    )
    return [row["relname"] for row in rows]


DATA = """
    INSERT INTO collections
    SELECT name, 5, 5, '2025-01-01Z', '2025-01-01Z', '{}', false
    FROM unnest(array['c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n']) AS name;
    INSERT INTO documents
    SELECT collection, id, 5, 1, '2025-01-01Z', '2025-01-01Z',
           '{"a": 1, "n": {"b": 2}, "o": {"b": [1]}}'
    FROM collections, unnest(array['a', 'b', 'd', 'e']) AS id;
    INSERT INTO documents
    SELECT collection, 'gone', 5, 1, '2025-01-01Z', '2025-01-01Z', NULL FROM collections;
    INSERT INTO documents
    SELECT collection, 'former', 4, 1, '2025-01-01Z', '2025-01-01Z', '1' FROM collections;
    INSERT INTO changes SELECT collection, 3, 7 FROM collections;
    INSERT INTO catalog SELECT '_catalog', collection FROM collections;
    INSERT INTO secrets VALUES ('_system', 'cursor', 'key');
"""


async def shards_of(connection: asyncpg.Connection, text: str, *arguments: Any) -> set[str]:
    """Return the numbers of the partitions that a statement reads or writes; nothing stays."""
    before = await writes(connection)
    transaction = connection.transaction()
    await transaction.start()
    try:
        plan = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", *arguments)
        written = await writes(connection) - before
    finally:
        await transaction.rollback()
    read = {node["Relation Name"] for node in nodes(plan) if "Relation Name" in node}
    touched = {name for name in read | set(written) if name[-1].isdigit()}
    return {name.rpartition("_")[2] for name in touched}


async def writes(connection: asyncpg.Connection) -> Counter[str]:
    """Return how many rows this session has written, by table, as far as it still knows."""
    rows = await connection.fetch(
        "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del AS number FROM pg_stat_xact_user_tables"
    )
    return Counter({row["relname"]: row["number"] for row in rows})


def nodes(plan: list[asyncpg.Record]) -> Iterator[dict[str, Any]]:
    """Yield each node of an explained plan that was run, or may be."""
    waiting = [json.loads(plan[0][0])[0]["Plan"]]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        if node.get("Actual Loops", 1):
            yield node


def test_each_statement_has_a_sample() -> None:
    """A new statement is tried as well, or is named here."""
    assert set(QUERIES) == {*SAMPLES, *KEYLESS, *GAPPED}


async def test_each_statement_stays_in_one_shard(sharded: asyncpg.Connection) -> None:
    """All it reads and writes lies where its collection is: in partitions of one number."""
    shards = {name: await shards_of(sharded, QUERIES[name], *arguments)
              for name, arguments in SAMPLES.items()}  # fmt: skip
    assert {name: found for name, found in shards.items() if len(found) != 1} == {}
    assert len(set.union(*shards.values())) > 1


@pytest.mark.parametrize("pairs", LISTS)
@pytest.mark.parametrize("few", [FEW, 1])
@pytest.mark.parametrize("names", [[], ["a", "n", "$updated_at", "$version"]], ids=["", "indexed"])
async def test_pages_stay_in_one_shard(
    sharded: asyncpg.Connection, pairs: list[tuple[str, str]], few: int, names: list[str]
) -> None:
    """Whatever is filtered and sorted, with an index or without, on the first page and the next."""
    indexes = query.indexes("c", names)
    text, arguments = prepared(pairs, few=few, indexes=indexes)
    rows = await sharded.fetch(text, *arguments)
    assert len(rows) == 2
    following, more = prepared(pairs, tuple(rows[0]["position"]), few=few, indexes=indexes)
    assert len(await sharded.fetch(following, *more)) == 2
    assert len(await shards_of(sharded, text, *arguments)) == 1
    assert len(await shards_of(sharded, following, *more)) == 1


@pytest.mark.parametrize("pairs", LISTS)
async def test_exports_stay_in_one_shard(
    sharded: asyncpg.Connection, pairs: list[tuple[str, str]]
) -> None:
    """The cursor's query touches one shard, and so does that for a large document."""
    text, arguments = opened(pairs)
    assert len(await shards_of(sharded, text, *arguments)) == 1
    part = query.to_sql(query.parse([*(pair for pair in pairs if pair[0] == "select"), ONE]))
    large = QUERIES["read_large"].format(**part.fragments)
    assert len(await shards_of(sharded, large, "c", *part.arguments)) == 1


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("SELECT id FROM documents WHERE id = $1", ["a"]),
        ("SELECT id FROM documents WHERE collection = ANY ($1)", [["c", "d", "e", "f", "g"]]),
        ("UPDATE documents SET version = 2 WHERE id = $1", ["a"]),
        ("DELETE FROM documents WHERE id = $1", ["a"]),
        (f"{INTO} SELECT collection, $1, 5, 1, created_at, created_at FROM collections", ["new"]),
        ("SELECT id FROM collections NATURAL LEFT JOIN documents WHERE incarnation = $1", [5]),
    ],
)
async def test_statements_across_shards_are_noticed(
    sharded: asyncpg.Connection, text: str, arguments: list[Any]
) -> None:
    """The check above can fail: it sees reads, writes and joins that forget the collection."""
    assert len(await shards_of(sharded, text, *arguments)) > 1


async def test_no_key_spans_collections(sharded: asyncpg.Connection) -> None:
    """A unique index without the collection is refused where tables are sharded."""
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        await sharded.execute("CREATE UNIQUE INDEX ON documents (id)")


# What the text may say


VOLATILE = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|nextval|currval"
    r"|random|random_normal|gen_random_uuid|uuidv[47]|setseed|txid_\w+|pg_\w*advisory\w*|pg_notify)"
    r"\s*\(|\b(current_timestamp|current_time|current_date|localtime|localtimestamp)\b"
    r"|\b(listen|notify|merge)\b",
    re.IGNORECASE,
)
COMPILER = Path(credenza.__file__).parent / "query"
FRAGMENTS = "".join((COMPILER / name).read_text() for name in ("compile.py", "keys.py"))


@pytest.mark.parametrize("name", [*SAMPLES, *GAPPED])
def test_each_statement_names_its_collection_first(name: str) -> None:
    """$1 is the collection of every table that a statement names."""
    text = QUERIES[name]
    assert re.search(r"\.collection = \$1\b|SELECT \$1,|VALUES \(\$1,", text)
    for table in re.findall(
        r"(?:FROM|JOIN|UPDATE) (documents|collections|changes|catalog|secrets)\b", text
    ):
        assert f"{table}.collection = $1" in text, table
    for columns in re.findall(r"INSERT INTO \w+ \((\w+)", text):
        assert columns == "collection"


@pytest.mark.parametrize("text", [*QUERIES.values(), FRAGMENTS], ids=[*QUERIES, "fragments"])
def test_nothing_volatile_is_called(text: str) -> None:
    """Times, versions and ids are parameters: engines refuse what differs from node to node."""
    assert VOLATILE.search(text) is None
    assert VOLATILE.search(text.replace("$1", "now()") if "$1" in text else "now()")


def test_one_statement_holds_a_cursor() -> None:
    """An export alone, because who routes must then keep the whole transaction where it began."""
    holding = {name for name, text in QUERIES.items() if re.search(r"\b(DECLARE|FETCH)\b", text)}
    assert holding == {"open_export", "read_export"}


SPOKEN = re.compile(
    r"\b(SELECT|INSERT INTO|DELETE FROM|UPDATE \w+|TRUNCATE|CREATE|ALTER|DROP|GRANT|LISTEN|NOTIFY"
    r"|SET LOCAL|BEGIN|COMMIT|WHERE|ORDER BY)\s|^\s*(select [\d*]|insert into |delete from )"
)
"""SQL in a string, rather than a word of English or a method of HTTP."""

AT_HOME = ("sql/", "query/compile.py", "query/keys.py")
ELSEWHERE = {
    "select 1": "database.py: a sign of life by the simple protocol",
    "SELECT pg_advisory_xact_lock(:key)": "commands/migrate.py: never through a router",
    "SET LOCAL statement_timeout = 0": "commands/migrate.py: never through a router",
    "SELECT pg_try_advisory_lock($1) AS is_mine": "indexing.py: never through a router",
}
UNROUTABLE = {"executemany", "fetchrow", "fetchval", "cursor", "copy_records_to_table",
              "copy_to_table", "copy_from_query", "copy_from_table", "add_listener"}  # fmt: skip


def sources() -> Iterator[tuple[str, ast.AST]]:
    """Yield each node of the source with the place it is at."""
    root = Path(credenza.__file__).parent
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            yield f"{name}:{getattr(node, 'lineno', 0)}", node


def test_sql_has_one_home() -> None:
    """No string outside of sql/ and the compiler of queries is SQL."""
    homeless = {
        place: node.value
        for place, node in sources()
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if SPOKEN.search(node.value) and not place.startswith(AT_HOME)
    }
    assert sorted(homeless.values()) == sorted(ELSEWHERE), homeless


def test_statements_are_sent_as_routers_take_them() -> None:
    """`fetch` alone: a router miscounts what has a row limit, and takes no batch or copy."""
    calls = [
        place
        for place, node in sources()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in UNROUTABLE
    ]
    assert calls == []
