"""Write README.md of the chart from the comments of values.yaml, or check that it is current.

A value's line is the comment above it. What has no comment of its own belongs to the value that it
stands in. The text around the table is `README.in.md`.
"""  # noqa: INP001 - a script beside the chart

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

CHART: Final = Path(__file__).parent / "credenza"
NOTE: Final = (
    "<!-- Made by charts/readme.py from values.yaml and README.in.md; see `make docs`. -->"
)
PLACE: Final = "<!-- values -->"


class Value(NamedTuple):
    """A value of the chart: where it is, what it is without being given, and its comment."""

    path: str
    default: Any
    comment: str


def values(text: str) -> Iterator[Value]:
    """Yield what can be given, in the order of the file."""
    yield from _below(yaml.compose(text, yaml.SafeLoader), text.splitlines(), "")


def _below(node: yaml.Node | None, lines: list[str], path: str) -> Iterator[Value]:
    assert isinstance(node, yaml.MappingNode)  # noqa: S101 - the schema has nothing else there
    for key, value in node.value:
        name, comment = f"{path}{key.value}", _comment(lines, key.start_mark)
        if not _has_comments(value, lines):
            yield Value(name, yaml.SafeLoader("").construct_document(value), comment)
            continue
        if comment:
            yield Value(name, {}, comment)
        yield from _below(value, lines, f"{name}.")


def _has_comments(node: yaml.Node, lines: list[str]) -> bool:
    return isinstance(node, yaml.MappingNode) and any(
        _comment(lines, key.start_mark) or _has_comments(value, lines) for key, value in node.value
    )


def _comment(lines: list[str], mark: yaml.Mark) -> str:
    """Return the comment lines right above a key, as one text."""
    prefix = f"{' ' * mark.column}# "
    found: list[str] = []
    for line in reversed(lines[: mark.line]):
        if not line.startswith(prefix):
            break
        found.insert(0, line.removeprefix(prefix))
    return " ".join(found)


def table(text: str) -> str:
    """Return the table of all values."""
    rows = [
        f"| `{value.path}` | {_shown(value.default)} | {value.comment.replace('|', '&#124;')} |"
        for value in values(text)
    ]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])


def _shown(default: Any) -> str:
    return "" if default in ("", [], {}) else f"`{json.dumps(default)}`"


def readme(chart: Path) -> str:
    """Return the text of README.md."""
    text = (chart / "README.in.md").read_text()
    made = text.replace(PLACE, table((chart / "values.yaml").read_text()))
    return f"{NOTE}\n\n{made}"


def main() -> int:
    """Write README.md, or say that it is not current; the status is 1 then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, say what differs")
    parser.add_argument("--chart", type=Path, default=CHART, help="where the chart is")
    arguments = parser.parse_args()
    path = arguments.chart / "README.md"
    made = readme(arguments.chart)
    if not arguments.check:
        path.write_text(made)
    elif not path.exists() or path.read_text() != made:
        sys.stderr.write(f"{path} is not what values.yaml says: run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
