"""What SQL costs: the index or key that each page is read from, and the statements of each request.

The plans are those of 20,000 documents; the statements are counted in PostgreSQL's own log.
"""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import asyncpg
import pytest
import redis

from conftest import Serve
from credenza import query
from credenza.snapshots import FEW
from databases import connected, create_migrated, statements
from servers import Postgres, Valkey
from test_sql import NOW, QUERIES, nodes, opened, prepared

PAGE = 51
"""Rows that a page of the default size asks for."""

# Indexes


@pytest.fixture(scope="module")
def filled(postgres: Postgres) -> str:
    """Make a database with 20,000 documents in a collection and return its name."""
    return asyncio.run(fill(postgres))


async def fill(postgres: Postgres, indexes: query.Indexes = query.NO_INDEXES) -> str:
    """Store documents of which one in a thousand has a given `a`."""
    name = await create_migrated(postgres)
    async with connected(postgres, name) as connection:
        await connection.execute("""
            INSERT INTO collections VALUES ('c', 5, 5, now(), now(), '{}', true);
            INSERT INTO documents
            SELECT 'c', to_char(n, 'FM00000'), 5, n, now(), now(),
                   jsonb_build_object(
                       'a', n % 1000, 'o', jsonb_build_object('b', n % 1000), 'm', n % 2)
            FROM generate_series(1, 20000) AS n
        """)
        for index, (columns, condition) in query.definitions(indexes).items():
            gaps = {"name": index, "columns": columns, "condition": condition}
            await connection.execute(QUERIES["create_index"].format(**gaps))
        await connection.execute("VACUUM ANALYZE")  # as autovacuum would, soon after
    return name


EQUALITIES = [("a", "eq.7"), ("o", 'eq.{"b":7}'), ("o.b", "eq.7")]


@pytest.mark.parametrize("pair", EQUALITIES)
@pytest.mark.parametrize(
    ("mode", "order"),
    [
        ("force_custom_plan", "$id"),
        ("auto", "$id"),
        ("force_generic_plan", "$version"),
        ("force_generic_plan", "a.desc"),
    ],
)
async def test_equality_is_answered_by_the_index(
    postgres: Postgres, filled: str, mode: str, order: str, pair: tuple[str, str]
) -> None:
    """The GIN index on data finds the rows.

    In a plan for the value, in the one that PostgreSQL prefers after many executions, and, where no
    other index gives the order, in one made for any value.
    """
    async with connected(postgres, filled) as connection:
        statement = prepared([pair, ("order", order)], limit=PAGE)
        plan = await explained(connection, mode, *statement)
    assert "documents_data" in {node.get("Index Name") for node in plan}
    assert max(node["Actual Rows"] for node in plan) <= 20


async def test_equality_with_a_sampled_value_is_answered_by_the_index(
    postgres: Postgres, filled: str
) -> None:
    """Also where PostgreSQL overrates how many documents match, because it has sampled one."""
    async with connected(postgres, filled) as connection:
        sampled = await connection.fetchval(
            "SELECT (histogram_bounds::text::jsonb[])[50] ->> 'a' FROM pg_stats"
            " WHERE tablename = 'documents' AND attname = 'data'"
        )
        plan = await explained(
            connection, "force_custom_plan", *prepared([("a", f"eq.{sampled}")], limit=10)
        )
    assert sum(map(read, plan)) <= 20
    assert "documents_data" in {node.get("Index Name") for node in plan}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_page_of_many_is_read_along_its_order(
    postgres: Postgres, filled: str, mode: str
) -> None:
    """Where half of the documents match, a few are looked up in vain, and twice a page is read."""
    async with connected(postgres, filled) as connection:
        plan = await explained(connection, mode, *prepared([("m", "eq.1")], limit=PAGE))
    assert sum(map(read, plan)) <= 2 * (FEW + 1) + 2 * PAGE


def read(node: dict[str, Any]) -> int:
    """Return how many documents a node of a plan has read."""
    if node.get("Relation Name") != "documents":
        return 0
    return int(node["Actual Rows"]) + int(node.get("Rows Removed by Filter", 0))


INDEXES = query.indexes("c", ["a", "$version"])


@pytest.fixture(scope="module")
def indexed(postgres: Postgres) -> str:
    """Make such a database whose collection has indexes and return its name."""
    return asyncio.run(fill(postgres, INDEXES))


@pytest.mark.parametrize("mode", ["force_custom_plan", "auto", "force_generic_plan"])
@pytest.mark.parametrize(
    ("pairs", "place", "most"),
    [
        ([("a", "gte.7"), ("a", "lt.8")], None, 20),
        ([("a", "gt.998")], None, 20),
        ([("a", "lt.1"), ("order", "m,a")], None, 20),
        ([("$version", "gt.19980")], None, 20),
        ([("a", "gt.998"), ("m", "eq.1")], None, 20),
        ([("order", "a")], None, PAGE + 20),
        ([("order", "a.desc")], None, PAGE + 20),
        ([("order", "a.desc")], ("2", "500", "", "10500"), PAGE + 2 * 20),
        ([("order", "$version.desc")], ("500", "00500"), PAGE + 2),
        ([("a", "gt.500"), ("order", "a")], None, PAGE + 20),
        ([("a", "gt.500"), ("order", "a")], ("2", "600", "", "10600"), PAGE + 20),
    ],
    ids=str,
)
async def test_an_index_of_a_field_gives_the_page(
    postgres: Postgres,
    indexed: str,
    mode: str,
    pairs: list[tuple[str, str]],
    place: query.Position | None,
    most: int,
) -> None:
    """No more documents are read than match, or than the page has with those that are as large."""
    async with connected(postgres, indexed) as connection:
        statement = prepared(pairs, place, limit=PAGE, indexes=INDEXES)
        plan = await explained(connection, mode, *statement)
    assert 0 < sum(map(read, plan)) <= most


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_page_of_a_wide_range_is_read_along_its_order(
    postgres: Postgres, indexed: str, mode: str
) -> None:
    """As above, where nearly all documents are in the range."""
    async with connected(postgres, indexed) as connection:
        statement = prepared([("a", "gte.1")], limit=PAGE, indexes=INDEXES)
        plan = await explained(connection, mode, *statement)
    assert sum(map(read, plan)) <= (FEW + 1) + 2 * PAGE


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("place", [None, ("15000",)])
async def test_a_page_is_read_from_the_primary_key(
    postgres: Postgres, filled: str, mode: str, place: query.Position | None
) -> None:
    """In its order, from where the last one ended, and no more rows than it has."""
    async with connected(postgres, filled) as connection:
        plan = await explained(connection, mode, *prepared([], place, limit=PAGE))
    (scan,) = [node for node in plan if node.get("Relation Name") == "documents"]
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", "documents_pkey")
    assert scan["Actual Rows"] == PAGE
    assert scan.get("Rows Removed by Filter", 0) == 0


async def test_a_search_after_many_writes_reads_little_more(postgres: Postgres) -> None:
    """What the index has not put in its place yet is bounded: each search reads it all."""
    name = await create_migrated(postgres)
    async with connected(postgres, name) as connection:
        await connection.execute(
            "INSERT INTO collections VALUES ('c', 5, 5, now(), now(), '{}', true)"
        )
        for batch in range(50):
            numbers = range(batch * 200, batch * 200 + 200)
            texts = [json.dumps({f"k{key}": n * key for key in range(10)}) for n in numbers]
            ids = [f"{n:05}" for n in numbers]
            await connection.fetch(QUERIES["insert_documents"], "c", 9, NOW, ids, texts, 3)
        plan = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT id FROM documents"
            """ WHERE collection = 'c' AND data @@ 'strict $."k3" == 21'"""
        )
    (scan,) = [node for node in nodes(plan) if node.get("Index Name") == "documents_data"]
    assert scan["Shared Hit Blocks"] + scan["Shared Read Blocks"] <= PENDING_PAGES + 20


PENDING_PAGES = 32
"""Pages of 8 KiB that the index on data may have for what is not in its place yet."""

GROUP = [f"{number:05}" for number in range(1, 20_000, 1_000)]
MANY = len(GROUP)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("put_documents", [["1"] * MANY, ["false"] * MANY, *[[None] * MANY] * 2, ["false"] * MANY]),
        ("delete_documents", [[None] * MANY] * 2),
    ],
)
async def test_groups_of_writes_find_their_documents_by_key(
    postgres: Postgres, filled: str, mode: str, name: str, lines: list[list[str | None]]
) -> None:
    """Each step of their statement reads the documents of the group and no others."""
    arguments = ["c", 9, "2026-01-01Z", GROUP, *lines, [None] * MANY, 3]
    async with connected(postgres, filled) as connection:
        transaction = connection.transaction()
        await transaction.start()
        plan = await explained(connection, mode, QUERIES[name], arguments)
        await transaction.rollback()
    scans = [
        node
        for node in plan
        if node.get("Relation Name") == "documents" and "Scan" in node["Node Type"]
    ]
    assert len(scans) >= 3
    for scan in scans:
        assert "Seq" not in scan["Node Type"], scan
        assert scan.get("Index Name", "documents_pkey") == "documents_pkey"
        assert scan["Actual Rows"] * scan["Actual Loops"] <= MANY


@pytest.mark.parametrize(("order", "sorts"), [("$id", 0), ("a.desc,$id", 1)])
async def test_an_export_sorts_once_at_the_most(
    postgres: Postgres, filled: str, order: str, sorts: int
) -> None:
    """In the order of ids it is read from the primary key; in another one it is sorted once."""
    text, arguments = opened([("order", order)])
    async with connected(postgres, filled) as connection:
        plan = list(nodes(await connection.fetch(f"EXPLAIN (FORMAT JSON) {text}", *arguments)))
    assert [node["Node Type"] for node in plan].count("Sort") == sorts
    assert ("documents_pkey" in {node.get("Index Name") for node in plan}) == (not sorts)


async def explained(
    connection: asyncpg.Connection, mode: str, text: str, arguments: list[Any]
) -> list[dict[str, Any]]:
    """Return the nodes that a prepared statement runs, by a plan of that mode."""
    await connection.execute(f"SET plan_cache_mode = {mode}")
    await connection.execute(f"PREPARE page AS {text}")
    given = ", ".join(map(literal, arguments))
    for _ in range(EXECUTIONS):
        await connection.execute(f"EXECUTE page({given})")
    return list(
        nodes(await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE page({given})"))
    )


def literal(value: object) -> str:
    """Return a value as SQL."""
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(literal, value))}]::text[]"
    if value is None or isinstance(value, int):
        return "NULL" if value is None else str(value)
    return "'" + str(value).replace("'", "''") + "'"


EXECUTIONS = 10
"""After five PostgreSQL thinks about a plan for any value."""

# Cost


KNOWN = {" ".join(text.split()): name for name, text in QUERIES.items()}
A_PATCH = ["get_documents", "put_documents"]
AN_EXACT_CHUNK = ["BEGIN;", "import_documents", "COMMIT;"]
A_MOMENT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
TWO_PIECES_AND_THE_END = ["read_export"] * 3
AN_EXPORT = [A_MOMENT, "open_export", *TWO_PIECES_AND_THE_END, "COMMIT;"]
WHOLE = b'{"id":"whole","data":1}'
REPLACING = "view=document&on_conflict=replace"
NDJSON = {"headers": {"Content-Type": "application/x-ndjson"}}
STALE = {"headers": {"If-Match": '"1"'}}
COSTS: list[tuple[str, str, dict[str, Any], int, list[str]]] = [
    ("GET", "/a", {}, 200, ["get_documents"]),
    ("HEAD", "/a", {}, 200, ["get_documents"]),
    ("GET", "/a", {"headers": {"If-None-Match": "*"}}, 304, ["get_documents"]),
    ("GET", "/missing", {}, 404, ["get_documents"]),
    ("POST", "", {"json": 1}, 201, ["insert_documents"]),
    ("PUT", "/new", {"json": 1}, 201, ["put_documents"]),
    ("PUT", "/new", {"json": 2}, 200, ["put_documents"]),
    ("PUT", "/new", {"json": 3, "headers": {"If-Match": "*"}}, 200, ["put_documents"]),
    ("PUT", "/new", {"json": 4} | STALE, 412, ["put_documents", "get_documents"]),
    ("PATCH", "/new", {"json": {}}, 200, A_PATCH),
    ("DELETE", "/new", STALE, 412, ["delete_documents", "get_documents"]),
    ("DELETE", "/new", {}, 204, ["delete_documents"]),
    ("DELETE", "/new", {}, 404, ["delete_documents", "get_documents"]),
    ("GET", "", {}, 200, ["list_documents"]),
    ("GET", "?a=eq.1&order=a.desc", {}, 200, ["list_documents"]),
    ("GET", "", {"headers": {"If-None-Match": "*"}}, 304, ["get_state"]),
    ("GET", "", {"headers": {"If-None-Match": 'W/"other"'}}, 200, ["list_documents"]),
    ("POST", "/_import", {"content": b"1\n2\n" * 200} | NDJSON, 200, ["import_documents"]),
    ("POST", "/_import?view=document", {"content": WHOLE} | NDJSON, 200, AN_EXACT_CHUNK),
    ("POST", f"/_import?{REPLACING}", {"content": WHOLE} | NDJSON, 200, ["import_documents"]),
    ("GET", "/_export", {}, 200, AN_EXPORT),
]


async def test_what_each_request_costs(postgres: Postgres, serve: Serve) -> None:
    """Statements in PostgreSQL's own log, without a cache: one a request, and none at release.

    The collection's settings are one more, at most once a second.
    """
    name = await create_migrated(postgres)
    with serve(database_url=postgres.database(name)).client() as client:
        client.put("/data/a", json={"a": 1})
        client.get("/data")  # makes the key that signs cursors
        client.get("/data/_export")  # makes the connection of exports
        for method, path, options, expected, names in COSTS:
            before = len(statements(postgres, name))
            status = client.request(method, f"/data{path}", **options).status_code
            found = [named(text) for text in statements(postgres, name)[before:]]
            if "get_collection" not in names and "get_collection" in found:
                found.remove("get_collection")
            assert (method, path, status, found) == (method, path, expected, names)


async def test_settings_are_read_once_a_second(postgres: Postgres, serve: Serve) -> None:
    """A hundred writes in a row cost a hundred statements, and one more a second."""
    name = await create_migrated(postgres)
    with serve(database_url=postgres.database(name)).client() as client:
        client.put("/data/a", json=0)
        before, start = len(statements(postgres, name)), time.monotonic()
        for number in range(100):
            assert client.put("/data/a", json=number).status_code == 200
        seconds = time.monotonic() - start
    found = [named(text) for text in statements(postgres, name)[before:]]
    counted = Counter(found)
    assert counted.pop("put_documents") == 100
    assert counted.pop("get_collection", 0) <= seconds + 1
    # Settings are read beside a write, and may need the second connection.
    assert counted.pop("get_durability", 0) <= 1
    assert not counted


TAG = {"headers": {"If-None-Match": "*"}}
COHERENT: list[tuple[str, str, dict[str, Any], int, list[str], int]] = [
    ("GET", "/a", {}, 200, [], 0),
    ("HEAD", "/a", {}, 200, [], 0),
    ("GET", "/a", TAG, 304, [], 0),
    ("GET", "/b", {}, 200, ["get_documents"], 2),  # looked for, and filled in
    ("GET", "/b", {}, 200, [], 0),
    ("GET", "", {}, 200, ["list_documents"], 0),
    ("GET", "", {}, 200, [], 0),
    ("GET", "", TAG, 304, [], 0),
    ("POST", "", {"json": 1}, 201, ["insert_documents"], 1),
    ("PUT", "/a", {"json": 2}, 200, ["put_documents"], 1),
    ("GET", "/a", {}, 200, [], 0),
    ("PATCH", "/a", {"json": {}}, 200, A_PATCH, 1),
    ("DELETE", "/a", {}, 204, ["delete_documents"], 1),
]
"""Requests in their order, and for each: status, statements, and commands that Redis gets."""


async def test_what_each_request_costs_with_a_cache(
    postgres: Postgres, valkey: Valkey, serve: Serve
) -> None:
    """Statements in PostgreSQL's log and commands in Redis's monitor: none for what is held."""
    name = await create_migrated(postgres)
    service = serve(database_url=postgres.database(name), redis_url=valkey.url)
    monitored = valkey.client().monitor()  # type: ignore[no-untyped-call]  # as below
    with service.client() as client, monitored as monitor:
        for id_ in "ab":
            client.put(f"/data/{id_}", json={"a": 1})
        client.get("/data/a")
        client.get("/data?limit=1")  # makes the key that signs cursors
        commands(valkey, monitor)
        for method, path, options, expected, names, number in COHERENT:
            before = len(statements(postgres, name))
            status = client.request(method, f"/data{path}", **options).status_code
            found = [named(text) for text in statements(postgres, name)[before:]]
            assert (method, path, status, found) == (method, path, expected, names)
            sent = commands(valkey, monitor)
            assert (method, path, len(sent)) == (method, path, number), sent


BESIDES = {"PING", "CLIENT", "HELLO"}


def commands(valkey: Valkey, monitor: redis.client.Monitor) -> list[str]:
    """Return the commands that Redis has got from clients since the last time.

    Without those that make a connection or ask for a sign of life.
    """
    valkey.client().echo("so far")
    found: list[str] = []
    while True:
        seen = monitor.next_command()  # type: ignore[no-untyped-call]  # it has no types
        command: str = seen["command"]
        if "so far" in command:
            return found
        if seen["client_type"] != "lua" and command.partition(" ")[0] not in BESIDES:
            found.append(command)


GAPPED = {
    "SELECT page.id": "list_documents",
    "DECLARE export": "open_export",
    "FETCH FORWARD": "read_export",
}


def named(text: str) -> str:
    """Return the name of a statement, or its text where it has none."""
    flat = " ".join(text.split())
    begun = (name for beginning, name in GAPPED.items() if flat.startswith(beginning))
    return KNOWN.get(flat) or next(begun, flat)
