"""Queries on real PostgreSQL against an independent model of their meaning."""

import json
import re
import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credenza import query, values
from querying import (
    CURSORS,
    Bench,
    Pairs,
    documents,
    frozen,
    holds,
    jsons,
    lookup,
    metadata_of,
    name_of,
    page_of,
    paths,
    place,
    scalars,
    selected,
)
from servers import Postgres

many = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


INDEXED = [
    *("data", "a", "b", 'data."0"', "a.b", "a.a", "$version", "$created_at"),
    json.dumps('é"\\\n', ensure_ascii=False),
]


@pytest.fixture(scope="module", params=["postgres", "debian", "indexed by fields"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Open a store on each server, one of which orders strings as an English dictionary does.

    And one where fields have indexes, which the planner takes wherever they can serve.
    """
    if request.param == "indexed by fields":
        never = "ALTER DATABASE keyed SET enable_seqscan = off"
        bench = Bench(request.getfixturevalue("postgres"), "keyed", never, few=2, indexed=INDEXED)
    else:
        bench = Bench(request.getfixturevalue(request.param), "queries")
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def indexed(postgres: Postgres) -> Iterator[Bench]:
    """Open a store whose planner takes the GIN index wherever it can serve, for two documents."""
    bench = Bench(
        postgres,
        "indexed",
        "ALTER DATABASE indexed SET enable_seqscan = off",
        "ALTER TABLE documents DROP CONSTRAINT documents_pkey",
        few=2,
    )
    yield bench
    bench.close()


Term = tuple[list[str], str, str, Any]

terms_of = st.lists(
    st.tuples(
        paths,
        st.sampled_from(["", "not."]),
        st.sampled_from(["eq", "neq", "gt", "gte", "lt", "lte", "has"]),
        scalars | jsons,
    ).filter(lambda term: term[2][0] not in "gl" or not isinstance(term[3], list | dict)),
    max_size=8,
)


def check_filters(bench: Bench, data: list[Any], terms: list[Term]) -> None:
    """Compare what each filter finds alone, and what all find together, with the model."""
    collection = bench.load(data)
    found = [set(string.ascii_letters[-len(data) :])]
    pairs = []
    for steps, negation, operator, value in terms:
        text = "has" if operator == "has" else f"{operator}.{values.encode(value)}"
        pairs.append((name_of(steps), negation + text))
        found.append(set(bench.ids(collection, pairs[-1])))
        assert found[-1] == {
            metadata_of(number)["$id"]
            for number, document in enumerate(data)
            if holds(operator, lookup(document, steps), value) == (not negation)
        }, pairs[-1]
    assert set(bench.ids(collection, *pairs)) == set.intersection(*found)


@given(documents, terms_of)
@many
def test_filters_mean_what_the_model_says(bench: Bench, data: list[Any], terms: list[Term]) -> None:
    """Filters find the documents for which they hold."""
    check_filters(bench, data, terms)


@given(documents, terms_of)
@many
def test_the_index_finds_what_the_model_says(
    indexed: Bench, data: list[Any], terms: list[Term]
) -> None:
    """Filters find the same documents by the index."""
    check_filters(indexed, data, terms)


@given(
    documents,
    st.lists(
        st.tuples(st.sampled_from(["$version", "$created_at", "$id"]) | paths, st.booleans()),
        min_size=1,
        max_size=3,
        unique_by=lambda sort: str(sort[0]),
    ),
    st.integers(1, 5),
)
@many
def test_pages_in_any_order_give_each_document_once(
    bench: Bench, data: list[Any], sorts: list[tuple[Any, bool]], limit: int
) -> None:
    """Walking from cursor to cursor gives the order that the model computes."""
    collection = bench.load(data)
    expected = sorted(map(metadata_of, range(len(data))), key=lambda row: row["$id"])
    by_id = {metadata_of(number)["$id"]: document for number, document in enumerate(data)}
    for target, descending in reversed(sorts):
        if isinstance(target, str):
            expected.sort(key=lambda row, name=target: row[name], reverse=descending)  # type: ignore[misc]
        else:
            expected.sort(
                key=lambda row, steps=target: place(lookup(by_id[row["$id"]], steps)),  # type: ignore[misc]
                reverse=descending,
            )
    order = ",".join(
        (target if isinstance(target, str) else name_of(target)) + (".desc" if down else ".asc")
        for target, down in sorts
    )
    pairs, found, more = [("order", order), ("limit", str(limit))], "", True
    cursor: Pairs = []
    while more:
        rows, more = bench.page(collection, pairs + cursor)
        found += "".join(row["id"] for row in rows)
        if more:
            text = CURSORS.write(query.parse(pairs), collection, rows[-1]["position"])
            cursor = [("cursor", text)]
    assert found == "".join(row["$id"] for row in expected)


@given(documents, st.lists(paths, min_size=1, max_size=5))
@many
def test_select_keeps_nesting(bench: Bench, data: list[Any], chosen: list[list[str]]) -> None:
    """What lies at the selected paths, and nothing else, is in the answer."""
    collection = bench.load(data)
    rows, _ = bench.page(collection, [("select", ",".join(map(name_of, chosen)))])
    assert [frozen(values.decode(row["data"])) for row in reversed(rows)] == [
        frozen(selected(document, chosen)) for document in data
    ]


VALUES: list[Any] = [18, "18", True, "true", None, "null", "", "01", "NaN", [1], "[1", {"a": 1}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("18", 18), ("18.0", 18), ("1.8e1", 18), (" 18 ", 18), ('"18"', "18"), ("true", True)),
        *(('"true"', "true"), ("null", None), ('"null"', "null"), ("", ""), ('""', "")),
        *(("01", "01"), ("NaN", "NaN"), ("[1]", [1]), ("[1", "[1"), ('{"a":1.0}', {"a": 1})),
    ],
)
def test_a_value_is_json_if_it_can_be(bench: Bench, text: str, value: Any) -> None:
    """A value is JSON if it parses as JSON, else a string."""
    collection = bench.load([{"v": each} for each in VALUES])
    rows, _ = bench.page(collection, [("v", f"eq.{text}"), ("select", "v")])
    assert [frozen(values.decode(row["data"])) for row in rows] == [frozen({"v": value})]


def test_strings_are_compared_whole(bench: Bench) -> None:
    """Also those of which an index has the beginning alone, and those that just fit into it."""
    longs = ["a" * length for length in (199, 200, 201, 250)]
    longs += [text + "b" for text in longs]
    terms: list[Term] = [
        (["a"], "", operator, text) for text in longs for operator in ("gt", "gte", "lt", "lte")
    ]
    check_filters(bench, [{"a": text} for text in longs], terms)


def test_strings_compare_by_code_point(bench: Bench) -> None:
    """Neither the database's collation nor UTF-16 decides, in filters as in orders."""
    strings = ["B", "a", "aa", "b", "é", "\uffff", "😀"]
    collection = bench.load(strings)
    for number, text in enumerate(strings):
        assert len(bench.ids(collection, ("data", f"lt.{text}"))) == number
        assert len(bench.ids(collection, ("data", f"gte.{text}"))) == len(strings) - number
    assert bench.ids(collection, ("order", "data.asc")) == "ZYXWVUT"
    assert bench.ids(collection, ("order", "data.desc")) == "TUVWXYZ"


def test_arrays_are_never_unwrapped(bench: Bench) -> None:
    """Neither a path nor a comparison looks into an array, wherever it stands."""
    collection = bench.load(
        [[1], [[1]], {"a": [1]}, [{"a": 1}], {"a": [{"b": 1}]}, {"a": {"b": [1]}}, [], {"a": []}]
    )
    hidden = ["data=eq.1", "data=gt.0", "a=eq.1", "a=lte.1", "a.b=eq.1", "a.0=has", "0=has"]
    hidden += ["a.0=eq.1", "data=eq.null", "a.b.0=has", "a=eq.null", 'data."[0]"=has', "*=has"]
    for term in hidden:
        name, _, text = term.partition("=")
        assert bench.ids(collection, (name, text)) == "", term
        assert len(bench.ids(collection, (name, f"not.{text}"))) == 8, term
    assert bench.ids(collection, ("data", "eq.[1]")) == "Z"
    assert bench.ids(collection, ("a", "eq.[]")) == "S"
    assert bench.ids(collection, ("a.b", "eq.[1]")) == "U"
    assert bench.ids(collection, ("a", 'eq.[{"b":1}]')) == "V"


def test_metadata_can_be_compared(bench: Bench) -> None:
    """Ids are strings even where they look like numbers, versions numbers, times RFC 3339."""
    collection = bench.load([None] * 6)
    found = {
        ("$id", "eq.Z"): "Z",
        ("$id", 'eq."Z"'): "Z",
        ("$id", "lt.5"): "",
        ("$id", "has"): "UVWXYZ",
        ("$version", "eq.2"): "VY",
        ("$version", "gt.1.5"): "UVXY",
        ("$version", "lt.1e400"): "UVWXYZ",
        ("$version", "neq.1"): "UVXY",
        ("$created_at", "gt.2026-01-01T00:00:00Z"): "UWY",
        ("$created_at", "not.gt.2026-01-01T01:00:00.000000+01:00"): "VXZ",
        ("$updated_at", "eq.2026-01-01t00:00:00.000001z"): "UWY",
    }
    assert {pair: bench.ids(collection, pair) for pair in found} == found


def test_data_is_the_root(bench: Bench) -> None:
    """As the first step `data` is the root, so that any field can be named."""
    collection = bench.load(
        [{"data": 1}, {"limit": 1}, {"$id": 1}, {"a.b": {"c": 1}}, 1, {"data": {"data": 1}}]
    )
    names = ["data.data", "data.limit", "data.$id", '"a.b".c', "data", '"data".data']
    assert [bench.ids(collection, (name, "eq.1")) for name in names] == list("ZYXWVU")


@pytest.fixture(scope="module")
def many_rows(bench: Bench) -> Bench:
    """Store 20,000 documents in the collection `many`."""
    bench.run(
        bench.raw.execute(
            """
            INSERT INTO collections VALUES ('many', 1, 1, now(), now(), '{}', true);
            INSERT INTO documents SELECT 'many', n::text, 1, n, now(), now(), jsonb_build_object(
                'n', n, 's', 'v' || n, 'a', ARRAY[n, n + 1], 'o', jsonb_build_object('n', n))
            FROM generate_series(1, 20000) AS n;
            """
        )
    )
    bench.run(bench.raw.execute("VACUUM ANALYZE documents"))
    return bench


def plan_of(bench: Bench, mode: str, pairs: Pairs, position: query.Position | None = None) -> str:
    """Return how the server would find a page."""
    statement = query.to_sql(query.parse(pairs), position)
    text = page_of(statement, 50)
    arguments = ", ".join(
        f"ARRAY{each}" if isinstance(each, list) else "'" + str(each).replace("'", "''") + "'"
        for each in ["many", *statement.arguments, 1 << 30]
    )
    bench.run(bench.raw.execute(f"SET plan_cache_mode = {mode}; PREPARE page AS {text}"))
    rows = bench.run(bench.raw.fetch(f"EXPLAIN EXECUTE page({arguments})"))
    bench.run(bench.raw.execute("DEALLOCATE page"))
    return "\n".join(str(row[0]) for row in rows)


modes = pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])


@modes
@pytest.mark.parametrize(
    ("pairs", "served"),
    [
        ([("s", "eq.v7"), ("n", "gt.3"), ("order", "n")], True),
        ([("o.n", "eq.7"), ("order", "n.desc"), ("select", "n")], True),
        ([("a", "eq.[7,8]")], True),
        ([("n", "gt.3")], False),
        ([("s", "neq.v7"), ("order", "$id.desc")], False),
        ([("a", "has")], False),
    ],
    ids=str,
)
def test_the_index_serves_equality(
    many_rows: Bench, mode: str, pairs: Pairs, *, served: bool
) -> None:
    """Equality uses the GIN index whichever plan is made, and nothing else reads it whole.

    By id a plan for any value may read the primary key instead, whose order it is.
    """
    assert ("documents_data" in plan_of(many_rows, mode, pairs)) == served


@modes
@pytest.mark.parametrize(("order", "start"), [("$id", "id > "), ("$id.desc", "id < ")])
def test_a_page_by_id_starts_at_its_place(
    many_rows: Bench, mode: str, order: str, start: str
) -> None:
    """Pages by id are read from the primary key, from where the last one ended."""
    plan = plan_of(many_rows, mode, [("order", order)], ("777",))
    condition = re.search(r"using documents_pkey on documents.*\n *Index Cond: (.*)", plan)
    assert condition is not None, plan
    assert start in condition[1]
