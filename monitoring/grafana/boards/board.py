"""Dashboards of rows of panels. Must not know what they show.

Each has the tag `credenza`, by which they link to one another, and a fixed uid for links from
outside.
"""

import json
from collections.abc import Iterable
from typing import Final

from boards.panels import PROMETHEUS, Json
from boards.queries import NAMED, of

WIDTH: Final = 24
TAG: Final = "credenza"
UP: Final = 'up{job="$job", namespace=~"$namespace"'

Row = tuple[str, tuple[Json, ...]]


def chosen(name: str, label: str, query: str, about: str) -> Json:
    """Return a variable of which any number of values may be chosen, at first all."""
    return _asked(name, label, query, about) | {
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _asked(name: str, label: str, query: str, about: str) -> Json:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": about,
        "datasource": PROMETHEUS,
        "query": {"query": query, "refId": name, "qryType": 1},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
        "options": [],
    }


def typed(name: str, label: str, about: str) -> Json:
    """Return a variable that is typed in, or comes with a link."""
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "description": about,
        "query": "",
        "current": {"text": "", "value": ""},
        "hide": 0,
        "skipUrlSync": False,
        "options": [],
    }


JOB: Final = _asked(
    *("job", "Job", "label_values(credenza_build_info, job)"),
    "The scrape job; rules and alerts are about `credenza`.",
) | {
    "multi": False,
    "includeAll": False,
    "current": {"text": "credenza", "value": "credenza"},
}
NAMESPACE: Final = chosen(
    *("namespace", "Namespace", 'label_values(up{job="$job"}, namespace)'),
    "Of a cluster; under Compose there is none.",
)
POD: Final = chosen(
    "pod", "Pod", f"label_values({UP}}}, pod)", "Of a cluster; under Compose there is none."
)
INSTANCE: Final = chosen(
    *("instance", "Address", f'label_values({UP}, pod=~"$pod"}}, instance)'),
    "Where Prometheus scrapes a replica.",
)


def row(title: str, *panels: Json) -> Row:
    """Return panels below a head."""
    return title, panels


def board(name: str, title: str, about: str, *rows: Row, more: Iterable[Json] = ()) -> Json:
    """Return a dashboard with the uid `credenza-NAME`; `more` are variables of its own."""
    return {
        "uid": f"credenza-{name}",
        "title": title,
        "description": about,
        "tags": [TAG],
        "schemaVersion": 42,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "fiscalYearStartMonth": 0,
        "annotations": {"list": [_starts()]},
        "links": [_others()],
        "templating": {"list": [JOB, NAMESPACE, POD, INSTANCE, *more]},
        "panels": _placed(rows),
    }


def _starts() -> Json:
    """Return marks where a replica has started: the series' value is the time, in milliseconds."""
    return {
        "name": "Starts of replicas",
        "datasource": PROMETHEUS,
        "enable": True,
        "iconColor": "blue",
        "target": {"refId": "Anno", "expr": f"1000 * {of('process_start_time_seconds')}"},
        "titleFormat": f"{NAMED} has started",
        "useValueForTime": True,
    }


def _others() -> Json:
    return {
        "type": "dashboards",
        "tags": [TAG],
        "title": "Credenza",
        "tooltip": "",
        "icon": "external link",
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
    }


def _placed(rows: Iterable[Row]) -> list[Json]:
    """Give each panel an id and a place: from left to right, then below."""
    found: list[Json] = []
    y = 0
    for title, panels in rows:
        head = {"type": "row", "title": title, "collapsed": False, "panels": []}
        found.append(head | {"gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        x, y, high = 0, y + 1, 0
        for panel in panels:
            size = panel["gridPos"]
            if x + size["w"] > WIDTH:
                x, y, high = 0, y + high, 0
            found.append(panel | {"gridPos": {"x": x, "y": y, **size}})
            x, high = x + size["w"], max(high, size["h"])
        y += high
    return [{"id": number, **panel} for number, panel in enumerate(found, 1)]


def written(dashboard: Json) -> str:
    """Return a dashboard as JSON with a line for each panel.

    Pretty-printed, all of them would be too long for the annotation in which `kubectl apply` keeps
    what it has applied (256 KiB).
    """
    head = {name: value for name, value in dashboard.items() if name != "panels"}
    lines = ",\n".join(json.dumps(panel, ensure_ascii=False) for panel in dashboard["panels"])
    items = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    return "{\n" + ",\n".join(items) + f',\n"panels": [\n{lines}\n]\n}}\n'
