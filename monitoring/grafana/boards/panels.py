"""Panels as Grafana reads them. Must not know what is measured, nor where a panel stands.

tests/test_dashboard_schema.py holds each field against the schema of the Grafana that is deployed.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

Json = dict[str, Any]

PROMETHEUS: Final = {"type": "prometheus", "uid": "prometheus"}
LOKI: Final = {"type": "loki", "uid": "loki"}
JAEGER: Final = {"type": "jaeger", "uid": "jaeger"}

STATUS: Final = {"2xx": "green", "3xx": "blue", "4xx": "orange", "5xx": "red"}
"""Colours of the classes of status."""

Query = tuple[str, str]
"""PromQL, and the legend of its series."""

Steps = Mapping[float, str]
"""Colours by the value from which on they are meant."""


def stat(
    title: str, about: str, unit: str, *queries: Query, steps: Steps | None = None, **more: Any
) -> Json:
    """Return numbers of now. `steps` colours them, `words` stand for some, `width` of 24."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": more.get("text", "auto"),
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "showPercentChange": False,
        "wideLayout": True,
    }
    defaults = {
        "unit": unit,
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds({0: "green"} if steps is None else steps),
        **_words(more.get("words")),
        **_only(more, "decimals"),
    }
    return _panel("stat", title, about, queries, defaults, options, (more.get("width", 4), 4))


def graph(title: str, about: str, unit: str, *queries: Query, **more: Any) -> Json:
    """Return lines over time.

    `stacked` lays them on top of each other, `limit` draws a line where a bound is, `top` ends the
    axis, `below` lets it go below zero, `colours` are those of series by name, `exemplars` asks for
    them too, `width` is of 24.
    """
    stacked = more.get("stacked", False)
    custom: Json = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 20 if stacked else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    defaults = {
        "unit": unit,
        "custom": custom,
        "color": {"mode": "palette-classic"},
        **({} if more.get("below") else {"min": 0}),
        **({"max": more["top"]} if "top" in more else {}),
    }
    if "limit" in more:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = _thresholds({0: "transparent", more["limit"]: "red"})
    options = {
        "legend": _legend("table", "lastNotNull", "max"),
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    overrides = [
        _override("byName", name, color={"mode": "fixed", "fixedColor": colour})
        for name, colour in more.get("colours", {}).items()
    ]
    asked = _panel(
        "timeseries", title, about, queries, defaults, options, (more.get("width", 8), 8), overrides
    )
    if more.get("exemplars"):
        for target in asked["targets"]:
            target["exemplar"] = True
    return asked


def timeline(title: str, about: str, query: Query, words: Json, **more: Any) -> Json:
    """Return which state each series was in. `words` are those of its numbers, with colours."""
    options = {
        "alignValue": "left",
        "legend": _legend("list"),
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    defaults = {
        "unit": "none",
        "custom": {"fillOpacity": 70, "lineWidth": 0},
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds({0: "text"}),
        **_words(words),
    }
    place = more.get("width", 8), 8
    return _panel("state-timeline", title, about, (query,), defaults, options, place)


def table(
    title: str, about: str, columns: Mapping[str, Json], targets: Iterable[Json], **more: Any
) -> Json:
    """Return rows of now.

    `columns` are the fields that are shown, in order, all where there are none: `name` is the head,
    all else properties of the cells. `first` are transformations that make rows of what the targets
    answer, `links` are those of fields whose names an expression matches.
    """
    overrides = [
        _override("byName", column["name"], **properties)
        for column in columns.values()
        if (properties := {name: value for name, value in column.items() if name != "name"})
    ]
    overrides += [
        _override("byRegexp", names, links=links) for names, links in more.get("links", {}).items()
    ]
    defaults = {
        "unit": "none",
        "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds({0: "text"}),
    }
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}
    place = more.get("width", 12), more.get("height", 8)
    made = _panel("table", title, about, (), defaults, options, place, overrides)
    made["targets"] = list(targets)
    made["datasource"] = made["targets"][0]["datasource"]
    made["transformations"] = [*more.get("first", ()), *_organized(columns)]
    return made


def logs(title: str, about: str, query: str) -> Json:
    """Return lines of logs, the oldest first."""
    options = {
        "dedupStrategy": "none",
        "enableLogDetails": True,
        "prettifyLogMessage": False,
        "showCommonLabels": False,
        "showLabels": False,
        "showLogContextToggle": True,
        "showTime": True,
        "sortOrder": "Ascending",
        "wrapLogMessage": True,
    }
    made = _panel("logs", title, about, (), {}, options, (24, 8))
    return made | {"datasource": LOKI, "targets": [lines(query)]}


def trace(title: str, about: str, query: str) -> Json:
    """Return one trace with its spans."""
    made = _panel("traces", title, about, (), {}, {}, (24, 14))
    return made | {
        "datasource": JAEGER,
        "targets": [{"datasource": JAEGER, "refId": "A", "query": query}],
    }


def now(name: str, query: str) -> Json:
    """Return a query of a table for what there is now; its numbers are the field `Value #NAME`."""
    kind = {"format": "table", "instant": True, "range": False}
    return {"datasource": PROMETHEUS, "refId": name, "expr": query, "legendFormat": "", **kind}


def lines(query: str) -> Json:
    """Return a query of lines of logs."""
    return {
        "datasource": LOKI,
        "refId": "A",
        "expr": query,
        "queryType": "range",
        "direction": "forward",
        "maxLines": 1000,
    }


def link(title: str, url: str) -> list[Json]:
    """Return where a value of a table leads."""
    return [{"title": title, "url": url}]


def _panel(
    kind: str,
    title: str,
    about: str,
    queries: Iterable[Query],
    defaults: Json,
    options: Json,
    size: tuple[int, int],
    overrides: Iterable[Json] = (),
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": PROMETHEUS,
        "gridPos": {"w": size[0], "h": size[1]},
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
        "targets": [
            {
                "datasource": PROMETHEUS,
                "refId": chr(ord("A") + place),
                "expr": query,
                "legendFormat": legend,
                "range": True,
            }
            for place, (query, legend) in enumerate(queries)
        ],
    }


def _organized(columns: Mapping[str, Json]) -> list[Json]:
    shown = {
        "excludeByName": {},
        "includeByName": dict.fromkeys(columns, True),
        "indexByName": {field: place for place, field in enumerate(columns)},
        "renameByName": {field: column["name"] for field, column in columns.items()},
    }
    return [{"id": "organize", "options": shown}] if columns else []


def _thresholds(steps: Steps) -> Json:
    """Return thresholds; the first colour is that of all below the second."""
    first, *later = steps.items()
    return {
        "mode": "absolute",
        "steps": [
            {"color": first[1], "value": None},
            *({"color": colour, "value": value} for value, colour in later),
        ],
    }


def _words(words: Mapping[str, tuple[str, str]] | None) -> Json:
    """Return what stands for a number, and in which colour."""
    if words is None:
        return {}
    options = {
        number: {"text": text, "color": colour, "index": place}
        for place, (number, (text, colour)) in enumerate(words.items())
    }
    return {"mappings": [{"type": "value", "options": options}]}


def _legend(mode: str, *calculations: str) -> Json:
    return {
        "displayMode": mode,
        "placement": "bottom",
        "calcs": list(calculations),
        "showLegend": True,
    }


def _override(by: str, what: str, **properties: Any) -> Json:
    return {
        "matcher": {"id": by, "options": what},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }


def _only(more: Mapping[str, Any], *names: str) -> Json:
    return {name: more[name] for name in names if name in more}
