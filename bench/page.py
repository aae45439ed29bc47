"""Fills the page about performance, `performance.md` beside this, with results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench import report, targets
from bench.report import PERCENTILES, middle, shown

TEMPLATE: Final = Path(__file__).parent / "performance.md"


def text(results: dict[str, Any]) -> str:
    """Return the page."""
    parts = {
        "facts": _pairs(("of", ""), results["machine"]),
        "targets": _targets(results),
        "workloads": _workloads(results),
        "sizes": _sizes(results["sizes"]),
        "versions": _pairs(("what", "version"), results["versions"]),
    }
    filled = {name: "\n".join(lines).strip() for name, lines in parts.items()}
    return TEMPLATE.read_text().format(**filled, **results["plan"])


def _pairs(head: tuple[str, str], facts: dict[str, str]) -> Iterator[str]:
    yield from (f"| {head[0]} | {head[1]} |", "|---|---|")
    yield from (f"| {name} | {value} |" for name, value in facts.items())


def _targets(results: dict[str, Any]) -> Iterator[str]:
    yield from ("| target | aim | value | |", "|---|---|---|---|")
    for verdict in targets.verdicts(results):
        outcome = "met" if verdict.outcome == "met" else f"**{verdict.outcome}**"
        yield f"| {verdict.what} | {verdict.aim} | {verdict.shown} | {outcome} |"


def _workloads(results: dict[str, Any]) -> Iterator[str]:
    for name, result in results["workloads"].items():
        yield from (f"### {name[0].upper()}{name[1:]}", "", *_workload(result), "")


def _workload(result: dict[str, Any]) -> Iterator[str]:
    """Yield the table of a workload, with the columns that it has."""
    contenders = result["contenders"]
    is_load = result["unit"] == "requests/s"
    columns = PERCENTILES if is_load else {"megabytes": "MB/s"}
    yield f"| contender | {result['unit']} | × | {' | '.join(columns.values())} | |"
    yield f"|---|{'--:|' * (2 + len(columns))}---|"
    own = middle(contenders[report.ours(contenders)].get("runs", []), "rate")
    for name, entry in contenders.items():
        yield f"| {' | '.join([name, *_cells(entry, own, tuple(columns)), _note(entry)])} |"


def _cells(entry: dict[str, Any], own: float | None, columns: tuple[str, ...]) -> Iterator[str]:
    runs = entry.get("runs", [])
    rate = middle(runs, "rate")
    yield "–" if rate is None else shown(rate)
    yield "–" if rate is None or own is None else shown(own / rate)
    for column in columns:
        value = middle(runs, column)
        scale = 1.0 if column == "megabytes" else 1000.0
        yield "–" if value is None else shown(value * scale)


def _note(entry: dict[str, Any]) -> str:
    if "absent" in entry:
        return f"–: {entry['absent']}"
    refused = middle(entry["runs"], "refused")
    parts = [entry.get("note", ""), f"{refused:.1%} refused" if refused else ""]
    return "; ".join(part for part in parts if part)


def _sizes(sizes: dict[str, Any]) -> Iterator[str]:
    yield from ("| what | |", "|---|--:|")
    for name, size in sizes.items():
        yield f"| {name} | {shown(size['value'])} {size['unit']} |".replace("  ", " ")
