"""Queries as text: what is refused, what is bound, and the cursors, without a database."""

import json
import string
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credenza import errors, query, values
from credenza.query import paths
from querying import CURSORS, Pairs, keys, name_of, words

REFUSED: list[tuple[Pairs, str]] = [
    ([("age", "18")], "eq.<value>, neq.<value>"),
    ([("age", "like.18")], "'like' is no operator"),
    ([("age", "not.not.eq.1")], "'not' is no operator"),
    ([("age", "has.1")], "'has' is no operator"),
    ([("age", "eq")], "'eq' is no operator"),
    ([("age", "gt.[1]")], "does not compare arrays"),
    ([("age", r'eq."\u0000"')], "cannot be stored"),
    ([("age", r'eq."\ud800"')], "cannot be stored"),
    ([("age", "eq.1e1001")], "cannot be stored"),
    ([("age", "eq." + "[" * 33 + "]" * 33)], "cannot be stored"),
    ([("age", "eq.a\0b")], "U+0000"),
    ([("a\0b", "eq.1")], "U+0000"),
    ([("age", "eq.\ud800")], "UTF-8"),
    ([("age", "eq." + "x" * 8190)], "8192 bytes"),
    ([("é" * 4097, "has")], "8192 bytes"),
    ([("a", "has")] * 33, "32 filters"),
    ([(".".join("a" * 33), "has")], "32 steps"),
    ([("$size", "eq.1")], "$id, $version, $created_at, $updated_at"),
    ([("$id.a", "eq.1")], "There is no '$id.a'"),
    ([("$version", "eq.new")], "compared with a number"),
    ([("$version", "eq.true")], "compared with a number"),
    *(
        ([("$created_at", f"gt.{text}")], "RFC 3339")
        for text in ("2026", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00", "1", "now")
    ),
    *(([(name, "eq.1")], f"written data.{name}") for name in ("and", "where", "count", "not.or")),
    *(([(name, "has")], "missing") for name in ("", "a.", ".a", "a..b", 'a"b"', '"a', "a(b)")),
    ([("a,b", "has")], "more than one"),
    ([(r'"\x"', "has")], "not a JSON string"),
    ([(r'"\ud800"', "has")], "not a JSON string"),
    *(([("limit", text)], "from 1 to 1000") for text in ("0", "1001", "-1", "x", "", "٣", "1e1")),
    ([("view", "all")], "document, data"),
    ([("select", "")], "missing"),
    ([("select", "a,$id")], "metadata are not part"),
    ([("select", ",".join("a" * 65))], "64 fields"),
    ([("select", ",".join(["a.b.c.d.e"] * 52))], "256 steps"),
    ([("order", "a,b,c,d,e,f")], "5 fields"),
    ([("order", "a,data.a.desc")], "each once"),
    ([("order", "$age")], "There is no '$age'"),
    *(
        ([(name, text)] * 2, f"{name} is given 2 times")
        for name, text in {"select": "a", "order": "a", "limit": "1", "cursor": "x"}.items()
    ),
]


def test_a_quoted_key_of_long_characters() -> None:
    """A key whose characters have four bytes each is a key like others."""
    assert paths.split('"\U0001f600\U0001f600\U0001f600"') == [
        [paths.Step("\U0001f600" * 3, bare=False)]
    ]


@pytest.mark.parametrize(("pairs", "detail"), REFUSED, ids=lambda value: ascii(value)[:40])
def test_what_cannot_be_understood_is_refused(pairs: Pairs, detail: str) -> None:
    """Each mistake is a 400 that says what is wrong, and can itself be written as JSON."""
    with pytest.raises(errors.InvalidQuery) as raised:
        query.parse(pairs)
    assert detail in raised.value.detail
    assert values.encode(raised.value.detail)


@given(st.lists(keys, min_size=2, max_size=2), words, words)
def test_texts_are_bound(steps: list[str], value: str, at: str) -> None:
    """Whatever a client says, the SQL is the same as for harmless words."""

    def fragments(steps: Sequence[str], value: str, at: str) -> dict[str, str]:
        name = name_of(steps)
        pairs = [(name, f"eq.{json.dumps(value)}"), (name, "has"), ("$id", f"gt.{value}")]
        pairs += [("select", name), ("order", f"{name}.desc")]
        return query.to_sql(query.parse(pairs), ("3", "0", at, at)).fragments

    assert fragments(steps, value, at) == fragments(["x", "y"], "z", "z")


# Cursors

ASKED: Pairs = [("a", "eq.1"), ("order", "b.desc"), ("limit", "2")]
POSITION = ("3", "0", "é", "x")


def _read(
    pairs: Pairs, cursor: str, cursors: query.Cursors = CURSORS, collection: str = "c"
) -> query.Position | None:
    return cursors.read(query.parse([*pairs, ("cursor", cursor)]), collection)


def test_cursors_survive_what_does_not_change_the_order() -> None:
    """A cursor is short, safe in URLs, and good for another page size, selection and view."""
    cursor = CURSORS.write(query.parse(ASKED), "c", POSITION)
    assert len(cursor) < 80
    assert set(cursor) <= {*string.ascii_letters, *string.digits, *"._-"}
    assert _read(ASKED, cursor) == POSITION
    assert _read([*ASKED[:2], ("select", "a"), ("view", "data")], cursor) == POSITION


def test_the_longest_cursor_can_be_sent() -> None:
    """Whatever the values to order by are, their cursor is within the limit of a parameter."""
    order = [("order", "a,b,c,d,e")]
    for text in ("".join(map(chr, range(0x10000, 0x100C8))), "".join(map(chr, range(1, 201)))):
        position = [part for _ in range(5) for part in ("3", "7" * 1000, text)] + ["x" * 128]
        cursor = CURSORS.write(query.parse(order), "c", position)
        assert _read(order, cursor) == tuple(position)


def test_keys_can_be_changed() -> None:
    """The newest key signs, all verify, a key that is gone does not."""
    cursor = CURSORS.write(query.parse(ASKED), "c", POSITION)
    assert _read(ASKED, cursor, query.Cursors(["newer", "new"])) == POSITION
    assert query.Cursors(["new"]).write(query.parse(ASKED), "c", POSITION) == cursor
    with pytest.raises(errors.CursorMismatch):
        _read(ASKED, cursor, query.Cursors(["old"]))


@pytest.mark.parametrize(
    ("pairs", "collection"),
    [
        (ASKED, "d"),
        (ASKED[1:], "c"),
        ([("a", "eq.2"), *ASKED[1:]], "c"),
        ([("a", "eq.true"), *ASKED[1:]], "c"),
        ([ASKED[0], ("order", "b")], "c"),
        ([ASKED[0], ("order", "b.desc,$id.desc")], "c"),
    ],
)
def test_cursors_belong_to_one_query(pairs: Pairs, collection: str) -> None:
    """Another collection, filter or order is a mismatch."""
    cursor = CURSORS.write(query.parse(ASKED), "c", POSITION)
    with pytest.raises(errors.CursorMismatch):
        _read(pairs, cursor, collection=collection)


@given(st.data())
def test_cursors_cannot_be_changed(data: st.DataObject) -> None:
    """No other text is taken for a cursor."""
    cursor = CURSORS.write(query.parse(ASKED), "c", POSITION)
    at = data.draw(st.integers(0, len(cursor) - 2))  # two bits of the last letter mean nothing
    letter = data.draw(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    for text in (cursor[:at] + letter + cursor[at + 1 :], cursor[:at], letter + cursor, letter):
        if text != cursor:
            with pytest.raises(errors.CursorMismatch):
                _read(ASKED, text)
