"""Draws a dashboard from its file and what was answered. Must not know where answers come from."""  # noqa: INP001 - beside the script that uses it

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from units import written

Panel = dict[str, Any]
Place = tuple[float, float, float, float]
"""Inches from the left and from above, width, height."""

COLUMN: Final = 0.56
LINE: Final = 0.36
HEAD: Final = 0.9
"""Inches: a column and a line of the grid, and what stands above the first panel."""

GAP: Final = 0.06
TITLE: Final = 0.3
LEGEND_LINE: Final = 0.165
DPI: Final = 100
TINTS: Final = 256
"""Colours of a picture; more would make it larger."""

COLOURS: Final = {
    "green": "#56a64b",
    "orange": "#ff780a",
    "red": "#e02f44",
    "blue": "#3274d9",
    "text": "#24292e",
    "transparent": "none",
}
CYCLE: Final = (
    *("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0"),
    *("#508642", "#cca300", "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477"),
)
GREY: Final = "#6e7781"
EDGE: Final = "#d0d7de"


@dataclass
class Series:
    """What was answered: the name in the legend, labels, seconds, numbers."""

    name: str
    labels: Mapping[str, str]
    times: Sequence[float]
    values: Sequence[float]

    @property
    def last(self) -> float:
        """The last number that is one."""
        return next((value for value in reversed(self.values) if not math.isnan(value)), math.nan)


@dataclass
class Answer:
    """What the queries of a panel were answered: series by target, and points of exemplars."""

    series: dict[str, list[Series]] = field(default_factory=dict)
    exemplars: list[tuple[float, float]] = field(default_factory=list)

    def all(self) -> list[Series]:
        """Return the series of all targets."""
        return [each for found in self.series.values() for each in found]


class Picture:
    """A dashboard as one picture."""

    def __init__(
        self,
        dashboard: dict[str, Any],
        note: str,
        span: tuple[float, float],
        marks: Sequence[float],
    ) -> None:
        places = [panel["gridPos"] for panel in dashboard["panels"]]
        self._lines = max(place["y"] + place["h"] for place in places)
        self._width, self._height = 24 * COLUMN, self._lines * LINE + HEAD
        self._span, self._marks = span, marks
        self.figure = Figure(figsize=(self._width, self._height), dpi=DPI, facecolor="#f4f5f5")
        self._text(0.1, 0.28, dashboard["title"], size=14, weight="bold")
        for line, text in enumerate(textwrap.wrap(note, 215)):
            self._text(0.1, 0.5 + 0.16 * line, text, size=8, color=GREY)

    def add(self, panel: Panel, answer: Answer) -> None:
        """Draw a panel at its place; what nobody was asked for is an empty frame."""
        x, y, width, height = self._place(panel)
        if panel["type"] == "row":
            self._text(x, y + 0.24, f"▾ {panel['title']}", size=10, weight="bold")
            return
        self._frame(x, y, width, height)
        self._text(x + 0.1, y + 0.2, panel["title"], size=9, weight="bold")
        inner = (x + 0.1, y + TITLE, width - 0.2, height - TITLE - 0.08)
        kind = panel["type"] if answer.series else ""
        draw = {
            "stat": self._stat,
            "timeseries": self._lines_over_time,
            "state-timeline": self._states,
            "table": self._table,
        }.get(kind, self._empty)
        draw(panel, answer, inner)

    def save(self, path: Path, fingerprint: str) -> None:
        """Write a PNG of few colours that says from which file it was drawn."""
        raw = io.BytesIO()
        self.figure.savefig(raw, format="png", facecolor=self.figure.get_facecolor())
        raw.seek(0)
        said = PngInfo()
        said.add_text("Dashboard", fingerprint)
        image = Image.open(raw).convert("RGB").quantize(TINTS, dither=Image.Dither.NONE)
        image.save(path, optimize=True, pnginfo=said)

    def _place(self, panel: Panel) -> Place:
        """Return where a panel is, in inches from the left and from above."""
        place = panel["gridPos"]
        return (
            place["x"] * COLUMN + GAP / 2,
            place["y"] * LINE + HEAD + GAP / 2,
            place["w"] * COLUMN - GAP,
            place["h"] * LINE - GAP,
        )

    def _axes(self, place: Place) -> Axes:
        x, y, width, height = place
        return self.figure.add_axes(
            (
                x / self._width,
                1 - (y + height) / self._height,
                width / self._width,
                height / self._height,
            )
        )

    def _frame(self, x: float, y: float, width: float, height: float) -> None:
        axes = self._axes((x, y, width, height))
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(EDGE)

    def _text(self, x: float, y: float, text: str, **style: Any) -> None:
        place = x / self._width, 1 - y / self._height
        self.figure.text(*place, text.replace("$", r"\$"), va="baseline", **style)

    def _empty(self, panel: Panel, answer: Answer, place: Place) -> None:
        (target, *_) = panel["targets"]
        source = panel["datasource"]["type"].capitalize()
        asked = target.get("expr") or target.get("query") or target.get("tags")
        x, y, width, height = place
        axes = self._axes((x, y, width, height))
        axes.set(xticks=[], yticks=[], facecolor="#fafbfc")
        axes.spines[:].set(color=EDGE, linestyle="--")
        middle = y + height / 2
        words = f"{source} answers this in Grafana; it is not part of this picture. It is asked:"
        self._text(x + 0.2, middle - 0.05, words, size=8, color=GREY)
        self._text(x + 0.2, middle + 0.15, asked, size=8, family="monospace")

    def _stat(self, panel: Panel, answer: Answer, place: Place) -> None:
        x, y, width, height = place
        found = answer.all()
        by_name = panel["options"]["textMode"] == "name"
        share = width / max(len(found), 1)
        for number, series in enumerate(found):
            text, colour = shown(panel, series.last)
            axes = self._axes((x + number * share, y, share, height))
            axes.axis("off")
            axes.text(
                *(0.5, 0.5, series.name if by_name else text),
                ha="center",
                va="center",
                size=20,
                color=colour,
            )

    def _lines_over_time(self, panel: Panel, answer: Answer, place: Place) -> None:
        x, y, width, height = place
        found = sorted(answer.all(), key=lambda series: -_peak(series))
        room = max(int(height * 0.42 / LEGEND_LINE), 2)
        rows = min(len(found), room)
        below = rows * LEGEND_LINE + 0.3
        axes = self._axes((x + 0.62, y + 0.05, width - 0.7, height - below - 0.1))
        stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
        colours = [_line_colour(panel, series, at) for at, series in enumerate(found)]
        if stacked and found:
            _stack(axes, found, colours)
        else:
            for series, colour in zip(found, colours, strict=True):
                axes.plot(series.times, series.values, lw=1, color=colour)
        for at, value in answer.exemplars:
            axes.plot(at, value, "D", ms=4, mfc="none", mec=COLOURS["blue"])
        self._dress(axes, panel)
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for row, (series, colour) in enumerate(zip(found[:rows], colours, strict=False)):
            line = y + height - below + 0.38 + row * LEGEND_LINE
            more = f"  (and {len(found) - rows} more)" if row == rows - 1 < len(found) - 1 else ""
            self._text(x, line, "—", size=8, color=colour, weight="bold")
            self._text(x + 0.18, line, f"{series.name}{more}"[: int(width * 9.4)], size=7)
            values = f"{written(series.last, unit)} last, {written(_peak(series), unit)} max"
            self._text(x + width, line, values, size=7, ha="right", color=GREY)

    def _dress(self, axes: Axes, panel: Panel) -> None:
        defaults = panel["fieldConfig"]["defaults"]
        axes.set_xlim(0, self._span[1] - self._span[0])
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda at, _: f"{at // 60:.0f}:{at % 60:02.0f}")
        )
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 1.5, 2, 3, 6, 10]))
        axes.tick_params(labelsize=7, colors=GREY, length=0)
        axes.spines[:].set_visible(False)
        axes.set_facecolor("none")
        axes.grid(color="#e6e9ec", lw=0.6)
        for at in self._marks:
            axes.axvline(at, color=COLOURS["blue"], ls=":", lw=1)
        if panel["type"] != "timeseries":
            return
        unit, (low, high) = defaults["unit"], axes.dataLim.intervaly
        low, high = (low, high) if math.isfinite(low) else (0, 0)
        top = defaults.get("max") or (high * 1.1 if high > 0 else 1)
        axes.set_ylim(defaults.get("min", min(low, 0)), top)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, unit)))
        for step in defaults.get("thresholds", {}).get("steps", [])[1:]:
            if step["value"] < axes.get_ylim()[1]:
                axes.axhline(step["value"], color=COLOURS[step["color"]], ls="--", lw=1)

    def _states(self, panel: Panel, answer: Answer, place: Place) -> None:
        x, y, width, height = place
        found = answer.all()
        axes = self._axes((x + 1.75, y + 0.1, width - 1.85, height - 0.75))
        for row, series in enumerate(found):
            edges = [*series.times, self._span[1] - self._span[0]]
            for at, (begin, end) in enumerate(pairwise(edges)):
                _, colour = shown(panel, series.values[at])
                axes.barh(row, end - begin, left=begin, height=0.8, color=colour, alpha=0.7)
        self._dress(axes, panel)
        axes.set_yticks(range(len(found)), [_folded(series.name) for series in found])
        axes.invert_yaxis()
        words = panel["fieldConfig"]["defaults"]["mappings"][0]["options"].values()
        for number, word in enumerate(words):
            colour = COLOURS[word["color"]]
            self._text(
                x + 0.8 * number, y + height - 0.1, f"■ {word['text']}", size=8, color=colour
            )

    def _table(self, panel: Panel, answer: Answer, place: Place) -> None:
        x, y, width, _ = place
        heads, rows = cells(panel, answer)
        texts = [[text for text, _ in row] for row in rows]
        shares = [max(len(t) for t in column) + 2 for column in zip(heads, *texts, strict=True)]
        lefts = [sum(shares[:at]) / sum(shares) for at in range(len(shares))]
        size = min(8, width / sum(shares) * 115)
        for head, left in zip(heads, lefts, strict=True):
            self._text(x + left * width, y + 0.2, head, size=size, color=COLOURS["blue"])
        for line, row in enumerate(rows):
            for (text, colour), left in zip(row, lefts, strict=True):
                self._text(x + left * width, y + 0.5 + line * 0.3, text, size=size, color=colour)


def shown(
    panel: Panel, value: float, properties: Mapping[str, Any] | None = None
) -> tuple[str, str]:
    """Return a number as text, and its colour, by the panel's words, thresholds and unit."""
    defaults = panel["fieldConfig"]["defaults"] | dict(properties or {})
    for mapping in defaults.get("mappings", ()):
        if (word := mapping["options"].get(f"{value:g}")) is not None:
            return word["text"], COLOURS[word["color"]]
    steps = defaults["thresholds"]["steps"]
    reached = [step for step in steps if step["value"] is None or value >= step["value"]]
    return written(value, defaults["unit"], defaults.get("decimals")), COLOURS[reached[-1]["color"]]


def cells(panel: Panel, answer: Answer) -> tuple[list[str], list[list[tuple[str, str]]]]:
    """Return heads and rows of a table: one row for each set of labels, as `merge` makes them."""
    change = panel["transformations"][-1]["options"]
    overrides = {
        override["matcher"]["options"]: {
            each["id"]: each["value"] for each in override["properties"]
        }
        for override in panel["fieldConfig"]["overrides"]
    }
    merged: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for name, found in answer.series.items():
        for series in found:
            merged.setdefault(tuple(sorted(series.labels.items())), {})[name] = series.last
    rows = []
    for labels, numbers in merged.items():
        row = []
        for column, head in change["renameByName"].items():
            number = numbers.get(column.removeprefix("Value #"))
            if number is None:
                row.append((dict(labels).get(column, ""), COLOURS["text"]))
            else:
                row.append(shown(panel, number, overrides.get(head)))
        rows.append(row)
    return list(change["renameByName"].values()), rows


def _peak(series: Series) -> float:
    return max((value for value in series.values if not math.isnan(value)), default=0.0)


def _line_colour(panel: Panel, series: Series, at: int) -> str:
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == series.name:
            return COLOURS[override["properties"][0]["value"]["fixedColor"]]
    return CYCLE[at % len(CYCLE)]


def _stack(axes: Axes, found: Sequence[Series], colours: Sequence[str]) -> None:
    """Lay series on top of each other; where one has no number, it is 0."""
    times = sorted({at for series in found for at in series.times})
    tables = [dict(zip(series.times, series.values, strict=True)) for series in found]
    heights = [[table.get(at, 0.0) for at in times] for table in tables]
    axes.stackplot(times, heights, colors=list(colours), alpha=0.25)
    sums = [0.0] * len(times)
    for values, colour in zip(heights, colours, strict=True):
        sums = [below + value for below, value in zip(sums, values, strict=True)]
        axes.plot(times, sums, lw=1, color=colour)


def _folded(name: str) -> str:
    return name.replace(" ", "\n")
