"""Sums up results: rates, ratios, percentiles, and the lines that the terminal shows.

Must not know how anything was measured.
"""

from collections.abc import Iterator
from statistics import median
from typing import Any, Final

from bench.contenders.base import CREDENZA, ONE, UNCACHED

OURS: Final = (CREDENZA, UNCACHED, ONE)
PERCENTILES: Final = {"p50": "p50", "p99": "p99", "p999": "p99.9"}


def middle(runs: list[dict[str, float]], key: str) -> float | None:
    """Return the median of what the runs tell; None where they do not."""
    values = [run[key] for run in runs if key in run]
    return median(values) if values else None


def value(results: dict[str, Any], workload: str, contender: str, key: str) -> float | None:
    """Return the median of a contender in a workload; None where it has none."""
    found = results["workloads"].get(workload, {"contenders": {}})
    return middle(found["contenders"].get(contender, {}).get("runs", []), key)


def ours(contenders: dict[str, Any]) -> str:
    """Return which of the contenders of a workload is the service."""
    return next(name for name in OURS if name in contenders)


def lines(name: str, result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one workload: rates, how often ours is as fast, latencies in ms."""
    yield f"\n{name} ({result['unit']}; ×: how many times as fast the service is)"
    contenders = result["contenders"]
    own = middle(contenders[ours(contenders)].get("runs", []), "rate")
    for contender, entry in contenders.items():
        rate = middle(entry.get("runs", []), "rate")
        if rate is None or own is None:
            yield f"  {contender:26} {'–':>10}  {entry.get('absent', '')}"
            continue
        yield f"  {contender:26} {shown(rate):>10}  ×{shown(own / rate):<7}{_more(entry['runs'])}"


def size_lines(sizes: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on start and size."""
    yield "\nstart and size"
    for name, size in sizes.items():
        yield f"  {name:58} {shown(size['value']):>8} {size['unit']}"


def _more(runs: list[dict[str, float]]) -> str:
    parts = [
        f"{shown_as} {found * 1000:8.2f} ms"
        for key, shown_as in PERCENTILES.items()
        if (found := middle(runs, key)) is not None
    ]
    if (megabytes := middle(runs, "megabytes")) is not None:
        parts.append(f"{megabytes:.1f} MB/s")
    if refused := middle(runs, "refused"):
        parts.append(f"{refused:.0%} refused")
    return "  ".join(parts)


def shown(number: float) -> str:
    """Return a number with two or three digits that count."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"
