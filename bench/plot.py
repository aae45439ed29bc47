"""Draws the rates of a run as one picture. Must not know how anything was measured."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import report
from bench.contenders.base import (
    CEILING,
    COPY,
    CREDENZA,
    JSON_SERVER,
    KINTO,
    OWN,
    OWN_UNCACHED,
    PGBENCH,
    PLAIN,
    POCKETBASE,
    TWO,
    UNCACHED,
)

STYLES: Final = {
    "credenza": ((CREDENZA, UNCACHED), "o", "#c0392b"),
    "the limit": ((CEILING, PLAIN, PGBENCH, COPY), "|", "#000000"),
    "your own": ((OWN, OWN_UNCACHED), "s", "#2980b9"),
    POCKETBASE: ((POCKETBASE,), "^", "#27ae60"),
    KINTO: ((KINTO,), "v", "#8e44ad"),
    JSON_SERVER: ((JSON_SERVER,), "D", "#d68910"),
}
"""By label: the contenders, the mark and its colour."""

WIDTH: Final = 9.0
ROW: Final = 0.42
HEAD: Final = 1.6


def draw(results: dict[str, Any], path: Path) -> None:
    """Write an SVG, the same one for the same results."""
    names = [name for name in results["workloads"] if not _is_of_workers(results, name)]
    with mpl.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none"}):
        figure = Figure(figsize=(WIDTH, HEAD + ROW * len(names)), layout="constrained")
        axes = figure.add_subplot()
        for label, (contenders, mark, colour) in STYLES.items():
            points = _points(results, names, contenders)
            if points:
                axes.plot(*zip(*points, strict=True), mark, label=label, color=colour, ms=8, mew=2)
        _dress(axes, names)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _is_of_workers(results: dict[str, Any], name: str) -> bool:
    return TWO in results["workloads"][name]["contenders"]


def _points(
    results: dict[str, Any], names: list[str], contenders: tuple[str, ...]
) -> list[tuple[float, int]]:
    return [
        (rate, row)
        for row, name in enumerate(names)
        for contender in contenders
        if (rate := report.value(results, name, contender, "rate")) is not None
    ]


def _dress(axes: Axes, names: list[str]) -> None:
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("requests or documents a second (logarithmic)")
    axes.grid(axis="both", color="#dddddd")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
