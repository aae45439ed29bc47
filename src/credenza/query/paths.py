"""The names of fields in text: `a.b`, `"a.b".c`, `data.limit`, `$id`, and lists of them.

Must not know what a name is used for.
"""

import re
from typing import Final, NamedTuple

from credenza import errors, values
from credenza.query.tree import METADATA, Field, Metadata, Target
from credenza.settings import MAX_GROWTH

MAX_STEPS: Final = 32
MAX_SHOWN: Final = 80

_STEP = re.compile(r'"(?:[^"\\]|\\.)*"|[^.,"()]+', re.DOTALL)


class Step(NamedTuple):
    """One key of a path; only a bare one can be special."""

    key: str
    bare: bool


def split(text: str) -> list[list[Step]]:
    """Return the paths of a comma-separated list; InvalidQuery where one is not a path.

    A step is bare (any characters but `.`, `,`, `"` and parentheses) or a JSON string.
    """
    paths: list[list[Step]] = [[]]
    at = 0
    while True:
        match = _STEP.match(text, at)
        if match is None:
            raise errors.InvalidQuery(
                f"{shown(text)}: a name is missing or unfinished at {at + 1}."
            )
        paths[-1].append(_step(match[0]))
        at = match.end()
        if at == len(text):
            return paths
        if text[at] not in ".,":
            raise errors.InvalidQuery(f"{shown(text)}: a dot or a comma is missing at {at + 1}.")
        if text[at] == ",":
            paths.append([])
        at += 1


def target(steps: list[Step]) -> Target:
    """Return what a path leads to; InvalidQuery for unknown metadata and for too many steps."""
    first = steps[0]
    if first.bare and first.key.startswith("$"):
        if first.key not in METADATA or len(steps) > 1:
            raise errors.InvalidQuery(
                f"There is no {shown(_written(steps))}; there are {', '.join(METADATA)}. A field "
                "whose name begins with a dollar sign is written after data."
            )
        return Metadata(first.key)
    keys = tuple(step.key for step in steps)
    if first == Step("data", bare=True):
        keys = keys[1:]
    if len(keys) > MAX_STEPS:
        raise errors.InvalidQuery(f"A path has at most {MAX_STEPS} steps.")
    return Field(keys)


def shown(text: str) -> str:
    """Return a client's text for a message: quoted, and not all of it if it is long."""
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")


def _step(text: str) -> Step:
    if not text.startswith('"'):
        return Step(text, bare=True)
    try:
        body = text.encode()
        key = values.decode(values.check(body, max_depth=1, max_text=MAX_GROWTH * len(body)))
    except (errors.MalformedJson, errors.UnrepresentableJson) as problem:
        raise errors.InvalidQuery(f"{shown(text)} is not a JSON string: {problem.detail}") from None
    return Step(str(key), bare=False)


def _written(steps: list[Step]) -> str:
    return ".".join(step.key if step.bare else values.encode(step.key) for step in steps)
