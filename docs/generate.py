"""Write the pages of `docs/reference` that are made from the code, or check that they are current.

Settings come from the fields of `Settings`, errors from the classes of `errors.ALL`, metrics from
the registry of `Metrics`, commands from what `credenza … --help` prints, performance from what
`make bench` has measured, dashboards from their files, alerts from the rules of Prometheus.
"""  # noqa: INP001 - a script beside the pages that it makes

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from inspect import cleandoc
from io import StringIO
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from rich.console import Console

from credenza import errors
from credenza.cli import app
from credenza.settings import Settings
from credenza.telemetry import Metrics

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the benchmark is no part of the package

from bench import page  # noqa: E402

HERE: Final = Path(__file__).parent / "reference"
RULES: Final = ROOT / "monitoring/prometheus/rules"
NOTE: Final = "<!-- Made by docs/generate.py from the code; `make docs` makes it anew. -->"

NOT_RUN: Final = "<!-- not run: it was made from what the command says, and is compared with it -->"

DEFAULTS: Final = {"credenza_home": "the user's data folder"}
"""Defaults that depend on where the service runs."""

BOUNDS: Final = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def settings() -> Iterator[str]:
    """Yield the lines of the page on settings."""
    yield from (
        *("# Settings", ""),
        *("Settings are environment variables, read once at the start. An empty one counts as",),
        "absent. A value that cannot be used stops the start with a line that names the variable,",
        "never its value. The file of a secret is read again whenever the secret is needed.",
        *("", "| name | takes | default | meaning |", "|---|---|---|---|"),
    )
    for name, field in Settings.model_fields.items():
        yield _row(f"`{name.upper()}`", _takes(field), _default(name, field), field.description)


def _takes(field: FieldInfo) -> str:
    """Return the type of a setting for people, with its bounds."""
    text = str(field.annotation)
    words = [
        f"`{word}`"
        for each in (field.annotation, *get_args(field.annotation))
        if isinstance(each, type) and issubclass(each, StrEnum)
        for word in each
    ]
    kinds = {
        "Path": "path",
        "SecretStr": "text, secret",
        "float": "number",
        "int": "whole number",
        "bool": "true or false",
    }
    kind = next((said for known, said in kinds.items() if known in text), "text")
    bounds = [
        f"{sign} {getattr(bound, attribute):,}"
        for bound in field.metadata
        for known, (attribute, sign) in BOUNDS.items()
        if isinstance(bound, known)
    ]
    return ", ".join([*(words or [kind]), *bounds])


def _default(name: str, field: FieldInfo) -> str:
    if name in DEFAULTS:
        return DEFAULTS[name]
    return "" if field.default is None else f"`{str(field.default).lower()}`"


def problems() -> Iterator[str]:
    """Yield the lines of the page on errors."""
    yield from (
        *("# Errors", ""),
        "Each failure is answered as `application/problem+json` (RFC 9457). `code` is stable, and",
        "`type` is `urn:credenza:problem:` with the code after it. `detail` is for people and may",
        "change. This is the whole list. Requests whose first line or headers the HTTP server",
        "itself cannot read are refused by it, without such a body.",
        *("", "| status | code | title | when |", "|---|---|---|---|"),
    )
    for problem in errors.ALL:
        text = cleandoc(problem.__doc__ or "")
        yield _row(str(problem.status), f"`{problem.code}`", problem.title, text)


def metrics() -> Iterator[str]:
    """Yield the lines of the page on metrics."""
    yield from (
        *("# Metrics", ""),
        "`GET /metrics` answers with these series in Prometheus's text format; with `METRICS_PORT`",
        "they are served on that port too, without a token. The `http_` series have the names and",
        "labels of prometheus-fastapi-instrumentator. `handler` is the route's template, never the",
        "path that a client sent. A histogram has `_bucket`, `_sum` and `_count`. The `process_`",
        "series are prometheus-client's; with several workers they are those of all processes as",
        "one: [Run several processes](../how-to/several-processes.md#what-metrics-are).",
        *("", "| name | type | labels | meaning |", "|---|---|---|---|"),
    )
    registry = Metrics().registry
    found: list[Any] = list(registry._collector_to_names)  # noqa: SLF001 - there is no other way
    families = [(family, collector) for collector in found for family in _families(collector)]
    for family, collector in sorted(families, key=lambda each: _name(each[0])):
        labels = ", ".join(f"`{label}`" for label in getattr(collector, "_labelnames", ()))
        yield _row(f"`{_name(family)}`", family.type, labels, family.documentation)


def _families(collector: Any) -> Iterable[Any]:
    """Return the families of a collector; that of the process describes none but by measuring."""
    families: Iterable[Any]
    families = collector.describe() if hasattr(collector, "describe") else collector.collect()
    return families


def _name(family: Any) -> str:
    return f"{family.name}_total" if family.type == "counter" else str(family.name)


def commands() -> Iterator[str]:
    """Yield the lines of the page on commands."""
    yield from (
        *("# Commands", ""),
        "`make run` installs the command as `.venv/bin/credenza`. What goes wrong is one line on",
        "standard error, and the status is not 0.",
        *_helped(""),
    )
    for name in sorted(app):
        if not name.startswith("-") and app[name].show:
            yield from ("", f"## credenza {name}", *_helped(name))


def _helped(name: str) -> Iterable[str]:
    """Return what a command says of itself."""
    console = Console(width=80, file=StringIO(), color_system=None)
    with console.capture() as said:
        app.help_print([name] if name else [], console=console)
    lines = [line.rstrip() for line in said.get().strip().splitlines()]
    command = f"$ credenza {name} --help".replace("  ", " ")
    return ("", NOT_RUN, "```console", command, *lines, "```")


def performance() -> Iterator[str]:
    """Yield the lines of the page on performance."""
    results = json.loads((ROOT / "bench/results.json").read_text())
    yield from page.text(results).strip().splitlines()


def dashboards() -> Iterator[str]:
    """Yield the lines of the page on dashboards: the overview first."""
    yield from (
        *("# Dashboards", ""),
        "Grafana has them in the folder Credenza: under Compose, in a cluster, and with the chart.",
        "The tag `credenza` links each to the others; variables choose the scrape job, namespace,",
        "pod and address. Change them in `monitoring/grafana/boards`, then `make docs` writes the",
        "files. [Dashboards from Python](../decisions/0022-dashboards.md) tells how it is checked.",
        "",
        "Pictures are drawn by `make dashboards` from the dashboards' files, with the answers of a",
        "real Prometheus. **They are no screenshots of Grafana**, which has other fonts.",
        "Each says what happened meanwhile: some things failed on purpose, so that one sees more.",
        "They measure nothing, as load and servers shared a machine: see",
        "[Performance](performance.md).",
    )
    folder = ROOT / "monitoring/grafana/dashboards"
    for path in sorted(folder.iterdir(), key=lambda path: (path.stem != "overview", path.stem)):
        board = json.loads(path.read_text())
        picture = f"![{board['title']}, drawn from its file](dashboards/{path.stem}.png)"
        head = "| row | panel | what it answers |"
        yield from ("", f"## {board['title']}", "", board["description"], "", picture, "", head)
        yield "|---|---|---|"
        row = ""
        for panel in board["panels"]:
            if panel["type"] == "row":
                row = panel["title"]
            else:
                yield _row(row, panel["title"], panel["description"])


def alerts() -> Iterator[str]:
    """Yield the lines of the page on alerts, in the order of their files."""
    yield from (
        *("# Alerts", ""),
        "What Prometheus fires, each with its runbook. `page` wakes somebody, `ticket` waits for",
        "working hours, `none` is the sign of life. The rules are in",
        "`monitoring/prometheus/rules/`, and all but those about Prometheus itself in a",
        "PrometheusRule as well (the component `prometheus-operator`, `prometheusOperator.enabled`",
        "of the chart). [Service levels](../decisions/0021-service-levels.md) tells where the",
        "first ones come from.",
        *("", "| alert | severity | after | meaning |", "|---|---|---|---|"),
    )
    found = {
        name: [
            rule
            for group in yaml.safe_load((RULES / f"{name}.yml").read_text())["groups"]
            for rule in group["rules"]
            if "alert" in rule
        ]
        for name in ("alerts", "platform", "observers", "prometheus")
    }
    for rule in (rule for rules in found.values() for rule in rules):
        yield _row(
            f"[`{rule['alert']}`](../runbooks/{rule['alert']}.md)",
            rule["labels"]["severity"],
            rule.get("for", "at once"),
            rule["annotations"]["description"],
        )
    first, last = (
        {name: f"`{rules[at]['alert']}`" for name, rules in found.items()} for at in (0, -1)
    )
    yield from (
        "",
        f"Those from {first['platform']} to {last['platform']} need series that the",
        "service does not have, and are silent where nobody scrapes these:",
        "[Alerts of the platform](../how-to/alerts.md#alerts-of-the-platform). They have no `job`,",
        f"but the labels of the object that they are about. Those from {first['observers']} to",
        f"{last['observers']} are about collectors, Jaeger, Loki and Alertmanager,",
        "where these are deployed:",
        "[From a page to its cause](../how-to/observe.md#who-watches-them).",
        "",
        "An alert has the labels `job` and `namespace`; one of a replica `instance` and `pod`; one",
        "of an objective `slo`. Where they begin is in `targets.yml`; the memory limit is what",
        "each replica says of itself.",
    )


def _row(*cells: str | None) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str | None) -> str:
    return " ".join((text or "").replace("|", "&#124;").split())


PAGES: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "settings.md": settings,
    "errors.md": problems,
    "metrics.md": metrics,
    "commands.md": commands,
    "performance.md": performance,
    "dashboards.md": dashboards,
    "alerts.md": alerts,
}


def main() -> int:
    """Write the pages, or name those that are not current; the status is 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, name what differs")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the pages are")
    arguments = parser.parse_args()
    made = {
        arguments.folder / name: "\n".join([NOTE, "", *lines(), ""])
        for name, lines in PAGES.items()
    }
    if arguments.check:
        return _check(made)
    for path, text in made.items():
        path.write_text(text)
    return 0


def _check(made: dict[Path, str]) -> int:
    old = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in old:
        sys.stderr.write(f"{path} is not what the code says: run `make docs`\n")
    return min(len(old), 1)


if __name__ == "__main__":
    sys.exit(main())
