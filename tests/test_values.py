"""What a JSON value may be, held against PostgreSQL, the standard library and RFC 7396."""

import asyncio
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from credenza import errors, splitting, values
from servers import Postgres

Jsonb = Callable[[str], str]

# A busy machine may take its time.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def jsonb(postgres: Postgres) -> Iterator[Jsonb]:
    """Return how PostgreSQL gives JSON text back after having held it."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(postgres.url))

        def store(text: str) -> str:
            stored: str = runner.run(connection.fetchval("SELECT $1::text::jsonb::text", text))
            return stored

        yield store
        runner.run(connection.close())


def check(text: str | bytes, *, max_depth: int = 100, max_text: int = 200_000) -> str:
    """Check a body under limits that most tests do not care about."""
    body = text.encode() if isinstance(text, str) else text
    return values.check(body, max_depth=max_depth, max_text=max_text)


def faults(text: str | bytes, **limits: int) -> list[tuple[str, str]]:
    """Return pointer and detail of each fault of a body that must be refused as 422."""
    with pytest.raises(errors.UnrepresentableJson) as refusal:
        check(text, **limits)
    return [(fault["pointer"], fault["detail"]) for fault in refusal.value.members["errors"]]


def refuse(constant: str) -> None:
    """Refuse what the standard library takes for JSON and nobody else does."""
    raise ValueError(constant)


def distinct(value: values.JSON) -> Any:
    """Return a value in which true does not equal 1, as it does in Python."""
    if isinstance(value, dict):
        return {key: distinct(item) for key, item in value.items()}
    if isinstance(value, list):
        return [distinct(item) for item in value]
    return ("bool", value) if isinstance(value, bool) else value


ESCAPES = st.sampled_from(
    [
        r"\\",
        r"\"",
        r"\/",
        r"\b",
        r"\n",
        r"\u0000",
        r"\\u0000",
        r"\\\u0000",
        r"\u0001",
        r"\u00e9",
        r"\ud83d\ude00",
        r"\uD83D\uDE00",
        r"\ud83d",
        r"\uDE00",
        r"\ude00\ud83d",
        r"\\ud83d",
        "e",
        "1e9",
    ]
)
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\')
STRINGS = st.lists(ESCAPES | CHARACTERS | st.sampled_from("[]{},:\x7f"), max_size=8).map(
    lambda parts: '"' + "".join(parts) + '"'
)
EXPONENTS = st.integers(-20, 20) | st.integers(-1_100, 1_100) | st.integers(-(10**12), 10**12)
DIGITS = st.from_regex(r"[0-9]{0,5}", fullmatch=True) | st.integers(0, 1_100).map("7".__mul__)
NUMBERS = st.builds(
    lambda sign, whole, fraction, mark, exponent: (
        sign
        + (whole.lstrip("0") or "0")
        + ("." + fraction if fraction else "")
        + (mark + str(exponent) if mark else "")
    ),
    st.sampled_from(["", "-"]),
    DIGITS,
    DIGITS,
    st.sampled_from(["", "e", "E", "e+0", "E-00"]),
    EXPONENTS.map(abs),
)
SPACES = st.sampled_from(["", "", " ", "\n\t\r "])


def _container(items: st.SearchStrategy[str], brackets: str) -> st.SearchStrategy[str]:
    spaced = st.tuples(SPACES, items, SPACES).map("".join)
    return st.lists(spaced, max_size=4).map(lambda parts: ",".join(parts).join(brackets))


TEXTS = st.recursive(
    st.sampled_from(["null", "true", "false"]) | NUMBERS | STRINGS,
    lambda inner: (
        _container(inner, "[]")
        | _container(st.tuples(STRINGS, SPACES, st.just(":"), SPACES, inner).map("".join), "{}")
    ),
)
"""JSON text in all spellings, some of which jsonb cannot hold."""


@st.composite
def damaged_texts(draw: st.DrawFn) -> str:
    """Draw what is almost JSON: text with some characters cut out and others put in."""
    text = draw(TEXTS)
    start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    inserted = draw(st.text(st.sampled_from('[]{},:"\\01-.eEu \x00\x1f\xa0'), max_size=3))
    return text[:start] + inserted + text[min(end, start + 2) :]


@patient
@given(text=TEXTS)
@example(text="0e99999")
@example(text="0e999999999")
@example(text="[1e999, -1e-999, 1.50E+2, -0, -0.0]")
@example(text='{"a": 1, "a": {"b": [true, 1]}}')
def test_accepted_text_comes_back_equal(jsonb: Jsonb, text: str) -> None:
    """Text that is accepted equals what PostgreSQL gives back; other text it refuses, too."""
    try:
        accepted = check(text)
    except errors.UnrepresentableJson as refusal:
        if "1,000 digits" not in str(refusal.members["errors"]):
            with pytest.raises(asyncpg.PostgresError):
                jsonb(text)
    else:
        assert accepted == text
        assert distinct(values.decode(jsonb(text))) == distinct(values.decode(text))


@patient
@given(text=damaged_texts())
def test_text_called_malformed_is_malformed_to_postgresql(jsonb: Jsonb, text: str) -> None:
    """What is refused as malformed is refused by PostgreSQL; what is accepted it takes."""
    try:
        check(text)
    except errors.MalformedJson:
        with pytest.raises(asyncpg.PostgresError):
            jsonb(text)
    except errors.UnrepresentableJson:
        pass
    else:
        assert distinct(values.decode(jsonb(text))) == distinct(values.decode(text))


@patient
@given(text=damaged_texts() | TEXTS, closer_look=st.booleans())
def test_malformed_is_what_the_standard_library_calls_malformed(
    text: str, *, closer_look: bool
) -> None:
    """The quick look and the closer one, which U+0000 asks for, agree with another parser."""
    text = f'["\\u0000", {text}]' if closer_look else text
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=refuse)
        is_json = True
    except ValueError:
        is_json = False
    try:
        check(text)
    except errors.UnrepresentableJson:
        assert is_json
    except errors.MalformedJson:
        assert not is_json
    else:
        assert is_json


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"nul",
        b"NaN",
        b"01",
        b"1.",
        b"[1,]",
        b'{"a":1,}',
        b"{1:2}",
        b"[1 2]",
        b"1 2",
        b"]",
        b'"\\x"',
        b'"\\u12"',
        b'"\n"',
        b"'a'",
        b"+1",
        b'["\\ud800",]',
        b'["\\u0000"',
        b'{"\\u0000"}',
        b'["\\u0000"}',
        b'"\\u0000" :',
        b"1,2",
    ],
)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    """Text that RFC 8259 does not know, and bytes that are not UTF-8, are a 400."""
    with pytest.raises(errors.MalformedJson):
        check(body)


@pytest.mark.parametrize(
    ("body", "place"),
    [(b"[1,]", "byte 3"), (b'"a\xff"', "byte 2"), (b'["\\ud800", 01]', "byte 12")],
)
def test_malformed_text_is_told_where(body: bytes, place: str) -> None:
    """The detail names the byte at which reading stopped."""
    with pytest.raises(errors.MalformedJson, match=place):
        check(body)


@pytest.mark.parametrize(
    ("text", "pointer", "cause"),
    [
        (r'"\u0000"', "", "string contains U+0000"),
        (r'{"a": [0, {"b/~": "x\u0000"}]}', "/a/1/b~1~0", "string contains U+0000"),
        (r'{"a": {"\u0000": 1}}', "/a/\0", "key contains U+0000"),
        (r'[[], {}, "\ud800"]', "/2", "surrogate"),
        (r'["\udc00\ud800"]', "/0", "surrogate"),
        (r'{"\ud83d": 1}', "/\ufffd", "key contains a surrogate"),
        (r'{"caf\u00e9 \"": 1e5000}', '/café "', "1,000 digits"),
        ('[{"a": "1e5000"}, 1e5000]', "/1", "1,000 digits"),
    ],
)
def test_a_fault_is_pointed_at(text: str, pointer: str, cause: str) -> None:
    """The pointer (RFC 6901) leads to the value, or to the member whose key it is."""
    [(place, detail)] = faults(text)
    assert place == pointer
    assert cause in detail


def test_several_faults_are_told_at_once() -> None:
    """The first faults come together, in the order of the text, and not without end."""
    assert [place for place, _ in faults(r'{"a": "\u0000", "b": [1e1000, "\ud800"]}')] == [
        "/a",
        "/b/0",
        "/b/1",
    ]
    assert len(faults("[" + ",".join(["1e1000"] * 500) + "]")) == values.MAX_FAULTS


@pytest.mark.parametrize(
    "text", [r'"\\u0000"', r'"\\\\ud800"', r'"\ud83d\ude00"', '"\ufffe\U0010ffff"']
)
def test_what_only_looks_dangerous_is_accepted(text: str) -> None:
    """An escaped backslash before u0000, a pair of surrogates and noncharacters are harmless."""
    assert check(text) == text


@pytest.mark.parametrize(
    "number",
    [
        "1e400",
        "1e-400",
        "1e999",
        "1e-999",
        "0e99999",
        "0.00e5000",
        "7" * 1_000,
        "0." + "7" * 999,
        "123.5e-900",
        "0." + "0" * 500 + "1e1400",
        "1e000000000000000000000000002",
    ],
)
def test_numbers_of_a_thousand_digits_are_accepted(number: str) -> None:
    """A number counts as it is written out, without its exponent."""
    assert check(number) == number
    assert check(f"[{number}, -{number}]")


@pytest.mark.parametrize(
    "number",
    [
        "1e1000",
        "1e1001",
        "1e-1000",
        "1E-99999",
        "0e-1000",
        "7" * 1_001,
        "0." + "7" * 1_000,
        "7" * 500 + "." + "7" * 501,
        "1e131071",
        "1e99999999999999999999",
        "0e9999999999",
        "7" * 5_000,
    ],
)
def test_numbers_of_more_digits_are_refused(number: str) -> None:
    """A number that would be read back longer than a thousand digits is a 422."""
    for padding in range(0, 260, 13):
        [(pointer, _)] = faults(f'["{"x" * padding}", -{number}]')
        assert pointer == "/1"


LENGTHS = {
    "large numbers": '["1e999", ' + ",".join(["1e999", "-0.5e-3"] * 20) + "]",
    "without spaces": "[" + ",".join(["1"] * 1_000) + "]",
    "with many": '{"a" :  [1\t,\r\n2,\n[ ] ]\n,"b, : " : {"c":"\\", : "} } ' * 1,
    "as jsonb writes it": '[{"a": [1, 2, [], {}], "b": "ä, :"}, 1.50, -7, true, null]',
}


@pytest.mark.parametrize("text", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("is_read_slowly", [False, True])
def test_the_length_is_what_jsonb_gives_back(
    jsonb: Jsonb, text: str, *, is_read_slowly: bool
) -> None:
    """A document is never longer than what is allowed, to the byte, and may be as long."""
    body = f'["\\u0000", {text}]' if is_read_slowly else text
    length = len(jsonb(body.replace("\\u0000", "######")).encode())
    expected = [("/0", "The string contains U+0000.")] if is_read_slowly else []
    too_long = ("", f"Written out, the value has more than {length - 1:,} bytes.")
    if is_read_slowly:
        assert faults(body, max_text=length) == expected
    else:
        assert check(body, max_text=length)
    assert faults(body, max_text=length - 1) == [*expected, too_long]


@given(text=TEXTS)
@patient
def test_no_accepted_text_is_longer_than_allowed(jsonb: Jsonb, text: str) -> None:
    """What jsonb gives back keeps within the limit that is the lowest for which it is accepted."""
    try:
        check(text)
    except errors.Problem:
        return
    faults(text, max_text=len(jsonb(text).encode()) - 1)


def test_nesting_is_counted_in_containers() -> None:
    """A value of as many levels as allowed is accepted, and one level more is pointed at."""
    assert check('[{"a": [1]}, [[]]]', max_depth=3)
    assert faults('[1, {"a": [[]]}]', max_depth=3) == [
        ("/1/a/0", "The value is nested deeper than 3 levels.")
    ]
    assert check('["[[[[", "{\\"[[", "\\\\", [1, 2], [3], {}, {}]', max_depth=2)
    assert check("[" + ",".join(["[]"] * 1_000) + "]", max_depth=2)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"":', "}]")])
def test_endless_nesting_is_no_fault_of_the_service(opening: str, closing: str) -> None:
    """Brackets beyond any stack are too deep if they are closed, and malformed if they are not."""
    count = 100_000
    with pytest.raises(errors.MalformedJson):
        check(opening * count, max_text=10**6)
    balanced = opening * count + "1" + closing * count
    [(pointer, detail)] = faults(balanced, max_text=10**6)
    assert "deeper than 100 levels" in detail
    assert pointer.count("/") == 100
    with pytest.raises(errors.MalformedJson):
        check(balanced + closing, max_text=10**6)


@pytest.mark.parametrize("body", ["", " ", "\n\t"])
def test_an_empty_body_is_called_empty(body: str) -> None:
    """It is told from JSON that is cut off."""
    with pytest.raises(errors.MalformedJson, match=r"^The body is empty\.$"):
        check(body)


@pytest.mark.parametrize("rest", ["1", '"\\u0000"', "", "["])
def test_a_byte_order_mark_is_called_by_its_name(rest: str) -> None:
    """Nobody sees it, so that the number of a byte would not help."""
    with pytest.raises(errors.MalformedJson, match="byte order mark"):
        check("\ufeff" + rest)


@pytest.mark.parametrize("depth", [900, 990, 1_000])
def test_the_deepest_allowed_value_is_accepted(depth: int) -> None:
    """The limit holds exactly also where the interpreter's own stack would end."""
    assert check("[" * depth + "]" * depth, max_depth=depth)
    assert faults("[" * depth + "]" * depth, max_depth=depth - 1)


def test_decoding_is_exact() -> None:
    """No number passes through a float, and none is too long."""
    text = '[0.1, 1e400, 12345678901234567890123, -1.10, "é\\u00e9", null, true]'
    expected = [Decimal("0.1"), Decimal("1e400"), 12345678901234567890123, Decimal("-1.1")]
    assert values.decode(text) == [*expected, "éé", None, True]
    assert values.decode(text.encode()) == values.decode(text)
    assert values.decode("[1, " + "7" * 5_000 + "]") == [1, Decimal("7" * 5_000)]


@pytest.mark.parametrize(
    "text",
    ["", "[1,]", b'"\xff"', "1e99999999999999999999", "7" * 5_000 + "x", f"[{'7' * 5_000}, NaN]"],
)
def test_what_cannot_be_decoded_is_malformed(text: str | bytes) -> None:
    """Even without a check before, no text makes another exception than the one of the list."""
    with pytest.raises(errors.MalformedJson):
        values.decode(text)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@patient
@given(value=JSON_VALUES)
def test_encoding_is_the_reverse_of_decoding(value: values.JSON) -> None:
    """What is encoded decodes to an equal value, and is text that a check understands."""
    text = values.encode(value)
    assert distinct(values.decode(text)) == distinct(value)
    json.loads(text, parse_float=Decimal)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity")],
)
def test_what_json_does_not_know_is_not_encoded(value: float | Decimal) -> None:
    """NaN and the infinities are refused wherever they hide, and their names are not."""
    places: list[values.JSON] = [value, [value], {"a": [None, {"b": value}]}]
    for hidden in places:
        with pytest.raises(ValueError, match="NaN"):
            values.encode(hidden)
    named: values.JSON = ["NaN", "Infinity", None, 0.5, Decimal("1E+400")]
    assert values.encode(named) == '["NaN","Infinity",null,0.5,1E+400]'


APPENDIX_A: list[tuple[values.JSON, values.JSON, values.JSON]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), APPENDIX_A)
def test_merge_patch_does_what_its_rfc_shows(
    target: values.JSON, patch: values.JSON, result: values.JSON
) -> None:
    """The fifteen cases of RFC 7396 appendix A."""
    assert values.merge_patch(target, patch) == result


@patient
@given(target=JSON_VALUES, patch=JSON_VALUES)
def test_merge_patch_is_pure_and_repeatable(target: values.JSON, patch: values.JSON) -> None:
    """The arguments stay as they are, and applying a patch twice is applying it once."""
    before = values.encode([target, patch])
    once = values.merge_patch(target, patch)
    assert values.merge_patch(once, patch) == once
    assert values.encode([target, patch]) == before


@pytest.mark.parametrize("text", ["a", "...", "~.-", "A" * 128, "-1", "a_b", ".a", "a.", "9"])
def test_ids_of_all_allowed_forms(text: str) -> None:
    """Up to 128 unreserved characters (RFC 3986 §2.3)."""
    assert values.valid_id(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "_a", "a" * 129, "a\n", ".\n", "..\n", "a/b", "é", "a b", "a%20", "٣"]
)
def test_ids_of_other_forms_are_refused(text: str) -> None:
    """No dots that clients normalise away, no reserved first underscore, no line ends."""
    assert not values.valid_id(text)


def test_names_of_collections() -> None:
    """Lower case, at most 63 characters, and none that begins like an option or a system name."""
    assert all(map(values.valid_collection, ["a", "0", "a-b_c", "x" * 63]))
    assert not any(map(values.valid_collection, ["", "A", "_a", "-a", "a.b", "a\n", "x" * 64, "é"]))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes into chunks, some of them empty."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


def pushed(splitter: splitting.Lines | splitting.ArrayItems, chunks: list[bytes]) -> list[bytes]:
    """Push all chunks through a splitter and return all that comes out."""
    return [piece for chunk in chunks for piece in splitter.feed(chunk)] + splitter.end()


def pushed_until_fault(
    splitter: splitting.Lines | splitting.ArrayItems, chunks: list[bytes]
) -> tuple[list[bytes], errors.PayloadTooLarge]:
    """Push chunks through a splitter and return what comes out before the fault, and the fault."""
    out = []
    try:
        for chunk in chunks:
            out += splitter.feed(chunk)
        out += splitter.end()
    except errors.PayloadTooLarge as fault:
        return out, fault
    raise AssertionError(out)


PLACES = st.lists(st.integers(0, 10_000), max_size=12)


@patient
@given(
    lines=st.lists(st.binary(max_size=12).filter(lambda b: b"\n" not in b and b"\r" not in b)),
    ends=st.lists(st.sampled_from([b"\n", b"\r\n"]), min_size=1),
    places=PLACES,
    is_ended=st.booleans(),
)
def test_lines_do_not_depend_on_chunks(
    lines: list[bytes], ends: list[bytes], places: list[int], *, is_ended: bool
) -> None:
    """However a stream is cut, its lines come out, a blank one as nothing but itself."""
    data = b"".join(line + ends[number % len(ends)] for number, line in enumerate(lines))
    last = b"" if is_ended else b"{}"
    expected = [line if line.strip(b" \t") else b"" for line in lines] + [last] * (not is_ended)
    assert pushed(splitting.Lines(max_line=12), cut(data + last, places)) == expected


@patient
@given(places=PLACES)
def test_a_line_too_long_is_named_after_the_lines_before_it(places: list[int]) -> None:
    """The lines before it come out first; the line itself is never held as a whole."""
    chunks = [*cut(b"12345\r\n\n123456", places), b"7890\n1\n"]
    out, fault = pushed_until_fault(splitting.Lines(max_line=5), chunks)
    assert out == [b"12345", b""]
    assert fault.members == {"line": 3}
    assert "Line 3" in fault.detail


ITEM_TEXTS = st.lists(TEXTS, max_size=5)


@patient
@given(items=ITEM_TEXTS, space=SPACES, places=PLACES)
def test_items_do_not_depend_on_chunks(items: list[str], space: str, places: list[int]) -> None:
    """However the text of an array is cut, its items come out as they were put in."""
    text = f"{space}[" + ",".join(space + item + space for item in items) + f"{space}]{space}"
    whole = splitting.ArrayItems(max_item=100_000)
    assert pushed(whole, cut(text.encode(), places)) == [item.encode() for item in items]
    each_byte = splitting.ArrayItems(max_item=100_000)
    chunks = [bytes([byte]) for byte in text.encode()]
    assert pushed(each_byte, chunks) == [item.encode() for item in items]


@patient
@given(text=damaged_texts().map(lambda text: f"[{text}]") | damaged_texts(), places=PLACES)
def test_items_are_json_only_if_the_array_is(text: str, places: list[int]) -> None:
    """Text that is no array is refused as such, or has an item that is refused."""

    def outcome(check_items: Callable[[], list[values.JSON]]) -> Any:
        try:
            return distinct(check_items())
        except (errors.MalformedJson, errors.UnrepresentableJson) as refusal:
            return refusal.code

    def whole() -> list[values.JSON]:
        value = values.decode(check(text))
        if not isinstance(value, list):
            raise errors.MalformedJson
        return value

    def in_parts() -> list[values.JSON]:
        items = pushed(splitting.ArrayItems(max_item=100_000), cut(text.encode(), places))
        return [values.decode(check(item)) for item in items]

    found, expected = outcome(in_parts), outcome(whole)
    # Text may be both unrepresentable and, further on, malformed.
    assert found == expected or isinstance(found, str) == isinstance(expected, str)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{}",
        "1",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1,,2]",
        "[1 2]",
        "[{}{}]",
        '["a" "b"]',
        "[{} 1]",
        "[1 {}]",
        '["a"1]',
        "[1}]",
        "[}",
        "[] []",
        "[]]",
        "[1] x",
        "[[1]",
        '["]',
        "\ufeff[]",
    ],
)
def test_what_is_not_one_array_is_malformed(text: str) -> None:
    """Other values, missing commas and items, text after the end and an early end are a 400."""
    with pytest.raises(errors.MalformedJson):
        pushed(splitting.ArrayItems(max_item=100), [text.encode()])


@patient
@given(places=PLACES)
def test_an_item_too_long_is_named_after_the_items_before_it(places: list[int]) -> None:
    """The items before it come out first; the item itself is never held as a whole."""
    chunks = [*cut(b'  [12345,      [1,2], "1234', places), b'56"]']
    out, fault = pushed_until_fault(splitting.ArrayItems(max_item=5), chunks)
    assert out == [b"12345", b"[1,2]"]
    assert fault.members == {"line": 3}
    assert "Item 3" in fault.detail
