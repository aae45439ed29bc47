"""What a JSON value may be, and JSON text in and out; must not know of HTTP, SQL or documents.

A value that `check` lets through comes back from PostgreSQL's jsonb equal as a JSON value: the
order of keys, all but the last of equal keys, the spelling of a number (1E+2 becomes 100) and the
sign of -0 are not kept (RFC 8259 §4 and §6 promise none of them).
"""

import codecs
import json
import math
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from itertools import accumulate
from typing import TypeAlias

import msgspec

from credenza import errors

JSON: TypeAlias = bool | int | float | Decimal | str | list["JSON"] | dict[str, "JSON"] | None
"""A decoded JSON value; `decode` never returns a float, which is not exact."""

MAX_DIGITS = 1_000
"""Digits that a number may have when written out; 1e131071 would be read back as 131,072."""

LARGE = 16 * 1024
"""Length of a JSON text from which on it is worked on in a thread, while others are served.

From this size on, odd JSON could keep the event loop for longer than a thread costs.
"""

MAX_FAULTS = 10
"""Entries of `errors` in one UnrepresentableJson; the first faults of the text."""

MAX_ID = 128
"""Characters of an id, each of which is one byte."""

_ID = re.compile(rf"(?!\.{{1,2}}\Z)[A-Za-z0-9.~-][A-Za-z0-9._~-]{{0,{MAX_ID - 1}}}")
_COLLECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

_EXACT = msgspec.json.Decoder(float_hook=Decimal)
_GRAMMAR = msgspec.json.Decoder(msgspec.Raw)
_WRITER = msgspec.json.Encoder(decimal_format="number")


def valid_id(text: str) -> bool:
    """Return whether a document may have this id; clients normalise `.` and `..` away."""
    return _ID.fullmatch(text) is not None


def valid_collection(text: str) -> bool:
    """Return whether a collection may have this name."""
    return _COLLECTION.fullmatch(text) is not None


def decode(text: str | bytes) -> JSON:
    """Return the value of JSON text without loss: fractions and integers beyond int() as Decimal.

    MalformedJson if it is no JSON or has a number that not even Decimal holds.
    """
    try:
        try:
            return _EXACT.decode(text)  # type: ignore[no-any-return]  # the decoder is untyped
        except msgspec.ValidationError:
            # The one thing msgspec cannot be taught: an integer that int() refuses.
            return json.loads(  # type: ignore[no-any-return]  # as above
                text, parse_int=_integer, parse_float=Decimal, parse_constant=_refuse
            )
    except (msgspec.DecodeError, ValueError, InvalidOperation) as error:
        raise errors.MalformedJson(str(error)) from None


def encode(value: JSON) -> str:
    """Return a value as JSON text, Decimals as numbers; ValueError for NaN and infinities."""
    text = _WRITER.encode(value).decode()
    # msgspec writes Decimal("NaN") as it is and float("nan") as null.
    if any(word in text for word in ("NaN", "Infinity", "null")) and not _is_finite(value):
        raise ValueError("JSON has no NaN and no infinity.")
    return text


def merge_patch(target: JSON, patch: JSON) -> JSON:
    """Return the target as changed by a JSON Merge Patch (RFC 7396 §2); neither is modified."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def check(body: bytes, *, max_depth: int, max_text: int) -> str:
    """Return a body as JSON text that PostgreSQL's jsonb holds and gives back equal.

    `max_depth` counts containers within each other (a bare number has none), `max_text` the bytes
    of what jsonb gives back at the most: numbers are written out, a space stands after each comma
    and colon and nowhere else, and no string is longer. MalformedJson if it is not JSON (RFC 8259)
    in UTF-8; UnrepresentableJson, whose `errors` point at the places (RFC 6901), if it has U+0000,
    lone surrogates or numbers of more than MAX_DIGITS, is nested too deeply or too long.
    """
    if not body or body.isspace():
        raise errors.MalformedJson("The body is empty.")
    if body.startswith(codecs.BOM_UTF8):
        raise errors.MalformedJson("The body begins with a byte order mark; JSON has none.")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise errors.MalformedJson(f"The body is not UTF-8 (byte {error.start}).") from None
    if not _is_harmless(body, max_depth, max_text):
        _Reader(body, max_depth, max_text).read()
    return text


def _is_harmless(body: bytes, max_depth: int, max_length: int) -> bool:
    """Return whether a body needs no closer look; few passes, all at the speed of C."""
    try:
        _GRAMMAR.decode(body)
    except RecursionError:
        return False
    except msgspec.DecodeError as error:
        if b"\\u" in body:
            return False  # it may be no worse than a lone surrogate, which is JSON
        raise errors.MalformedJson(str(error)) from None
    if b"\\u0000" in body:
        return False
    structure = _outside_strings(body)
    return _is_shallow(structure, max_depth) and _is_short(structure, len(body), max_length)


def _outside_strings(body: bytes) -> bytes:
    """Return what well-formed JSON text has outside of its strings."""
    if b"\\" in body:
        # Escaped backslashes go first, so that each backslash left before a quote escapes it.
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2])


_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(set(range(256)) - set(_STEP))


def _is_shallow(structure: bytes, max_depth: int) -> bool:
    if structure.count(b"[") + structure.count(b"{") <= max_depth:
        return True
    brackets = structure.translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets))) <= max_depth


_NUMBERS = re.compile(rb"-?(0|[1-9][0-9]*+)(?:\.([0-9]++))?+(?:[eE]([+-]?[0-9]++))?+")
_LARGE_EXPONENT = re.compile(rb"[eE][+-]?0*+[0-9]{3}")
_SPACES = (b" ", b"\t", b"\n", b"\r")
_DIGITS_TO_0 = bytes.maketrans(b"123456789.", b"0000000000")
_LONG_RUN = b"0" * (MAX_DIGITS - 100)


def _is_short(structure: bytes, length: int, max_length: int) -> bool:
    """Return whether each number and the whole text certainly keep within limits, written out."""
    if _LONG_RUN in structure.translate(_DIGITS_TO_0):
        return False
    exponents = structure.count(b"e") - structure.count(b"true") - structure.count(b"false")
    exponents += structure.count(b"E")
    # An exponent of two digits adds at most a hundred digits to what is no long run. At most every
    # other byte is a comma or a colon, after which jsonb has a space.
    has_large = exponents and _LARGE_EXPONENT.search(structure)
    if not has_large and length + length // 2 + 100 * exponents <= max_length:
        return True
    length += sum(map(structure.count, (b",", b":"))) - sum(map(structure.count, _SPACES))
    for number in _NUMBERS.finditer(structure):
        digits, growth = _written_out(number)
        if digits > MAX_DIGITS:
            return False
        length += growth
    return length <= max_length


def _written_out(number: re.Match[bytes]) -> tuple[int, int]:
    """Return how many digits a number has without its exponent, and how much longer it is then.

    As PostgreSQL has it: trailing zeros of a fraction stay (0.0e-1 is 0.00), zero has one digit
    before the point (0e99999 is 0), and an exponent of ten digits is refused even for zero.
    """
    whole, fraction, exponent = (part or b"" for part in number.groups())
    size = exponent.lstrip(b"+-0") or b"0"
    if len(size) > len("999999999"):
        return 10 * MAX_DIGITS, 10 * MAX_DIGITS
    shift = -int(size) if exponent.startswith(b"-") else int(size)
    significant = len((whole + fraction).lstrip(b"0"))
    before = max(significant - len(fraction) + shift, 1) if significant else 1
    after = max(len(fraction) - shift, 0)
    sign = number[0].startswith(b"-")
    return before + after, sign + before + bool(after) + after - len(number[0])


_TOKENS = re.compile(
    rb"[ \t\n\r]*+(?:"
    rb'(?P<string>"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+")'
    rb"|(?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+)"
    rb"|(?P<word>true|false|null)|(?P<array>\[)|(?P<object>\{)|(?P<close>[]}])"
    rb"|(?P<comma>,)|(?P<colon>:)|(?P<end>\Z)|(?P<other>))"
)
_SPACED = frozenset({"comma", "colon"})
"""Tokens after which jsonb has a space."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class _Reader:
    """Reads JSON text of any depth token by token and notes where jsonb cannot hold it.

    Each method takes a token and returns what is due next, or None if the token is out of place.
    """

    def __init__(self, body: bytes, max_depth: int, max_length: int) -> None:
        self._body = body
        self._length = len(body)
        self._max_depth = max_depth
        self._max_length = max_length
        self._path: list[int | bytes] = []  # of each open container the index, or the key's token
        self._faults: list[dict[str, str]] = []

    def read(self) -> None:
        """Raise MalformedJson or UnrepresentableJson, or return if there is no reason to."""
        due: str | None = "value"
        for token in _TOKENS.finditer(self._body):
            kind = token.lastgroup or ""
            self._length += (kind in _SPACED) - (token.start(kind) - token.start())
            step = _STEPS.get((due, kind))
            due = step(self, token[kind]) if step else None
            if due is None:
                raise errors.MalformedJson(f"JSON is malformed (byte {token.start(kind)}).")
        if self._length > self._max_length:
            self._path = []
            self._fault(f"Written out, the value has more than {self._max_length:,} bytes.")
        if self._faults:
            raise errors.UnrepresentableJson(self._faults[0]["detail"], errors=self._faults)

    def string(self, token: bytes) -> str:
        self._examine(token, "string")
        return "next"

    def key(self, token: bytes) -> str:
        self._path[-1] = token
        self._examine(token, "key")
        return "colon"

    def number(self, token: bytes) -> str:
        if b"e" in token or b"E" in token or len(token) > MAX_DIGITS:
            digits, growth = _written_out(_NUMBERS.match(token))  # type: ignore[arg-type]  # it is one
            self._length += growth
            if digits > MAX_DIGITS:
                self._fault(f"Written out, the number has more than {MAX_DIGITS:,} digits.")
        return "next"

    def word(self, _: bytes) -> str:
        return "next"

    def open(self, token: bytes) -> str:
        if len(self._path) == self._max_depth:
            self._fault(f"The value is nested deeper than {self._max_depth:,} levels.")
        self._path.append(0 if token == b"[" else b'""')
        return "item" if token == b"[" else "member"

    def close(self, token: bytes) -> str | None:
        opened = self._path.pop() if self._path else None
        return "next" if isinstance(opened, int if token == b"]" else bytes) else None

    def comma(self, _: bytes) -> str | None:
        inside = self._path[-1] if self._path else None
        if isinstance(inside, int):
            self._path[-1] = inside + 1
            return "value"
        return "key" if inside is not None else None

    def colon(self, _: bytes) -> str:
        return "value"

    def end(self, _: bytes) -> str | None:
        return None if self._path else "next"

    def _examine(self, token: bytes, what: str) -> None:
        if b"\\u" in token:
            text = json.loads(token)
            if "\0" in text:
                self._fault(f"The {what} contains U+0000.")
            if _SURROGATE.search(text):
                self._fault(f"The {what} contains a surrogate without its other half.")

    def _fault(self, detail: str) -> None:
        # What is inside of a container that is too deep needs no mention of its own.
        if len(self._faults) < MAX_FAULTS and len(self._path) <= self._max_depth:
            self._faults.append({"pointer": self._pointer(), "detail": detail})

    def _pointer(self) -> str:
        """Return the place as an RFC 6901 pointer; U+FFFD for what UTF-8 cannot carry."""
        steps = (str(s if isinstance(s, int) else json.loads(s)) for s in self._path)
        pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
        return _SURROGATE.sub("\ufffd", pointer)


_VALUES = {
    "string": _Reader.string,
    "number": _Reader.number,
    "word": _Reader.word,
    "array": _Reader.open,
    "object": _Reader.open,
}
_STEPS: dict[tuple[str | None, str], Callable[[_Reader, bytes], str | None]] = {
    **{(due, kind): step for due in ("value", "item") for kind, step in _VALUES.items()},
    **{(due, "string"): _Reader.key for due in ("member", "key")},
    **{(due, "close"): _Reader.close for due in ("item", "member", "next")},
    ("colon", "colon"): _Reader.colon,
    ("next", "comma"): _Reader.comma,
    ("next", "end"): _Reader.end,
}
"""What may come where: (what is due, the kind of token) to the step that takes it."""


def _integer(digits: str) -> int | Decimal:
    try:
        return int(digits)
    except ValueError:  # more than sys.get_int_max_str_digits()
        return Decimal(digits)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON.")


def _is_finite(value: JSON) -> bool:
    rest: list[JSON] = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, list | dict):
            rest.extend(item if isinstance(item, list) else item.values())
        elif isinstance(item, Decimal):
            if not item.is_finite():
                return False
        elif isinstance(item, float) and not math.isfinite(item):
            return False
    return True
