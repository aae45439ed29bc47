"""What Grafana does with a dashboard's file: panels, variables, and the queries that it sends."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
GRAFANA = ROOT / "monitoring/grafana"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").iterdir())
}
KUBERNETES = re.compile(r"\b(?:kube_|certmanager_|credenza:volume_)")
"""In a query for what Kubernetes says, also as a rule has recorded it."""

LABEL = re.compile(r"\{\{(\w+)\}\}")

Panel = dict[str, Any]


def image_version() -> str:
    """Return the version of Grafana in the cluster."""
    (container,) = yaml.safe_load((GRAFANA / "deployment.yaml").read_text())["spec"]["template"][
        "spec"
    ]["containers"]
    name: str = container["image"]
    return name.partition(":")[2]


def panels(dashboard: dict[str, Any]) -> Iterator[Panel]:
    """Yield the panels of a dashboard that are no rows."""
    for panel in dashboard["panels"]:
        yield from (item for item in (panel, *panel.get("panels", ())) if item["type"] != "row")


def variables(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the variables of a dashboard."""
    found: list[dict[str, Any]] = dashboard["templating"]["list"]
    return found


def datasources() -> list[dict[str, Any]]:
    """Return the data sources that are provisioned, also those that come with traces and logs."""
    files = [
        *(GRAFANA / "provisioning/datasources").glob("*.yaml"),
        *GRAFANA.parent.glob("*/datasource.yaml"),
    ]
    return [source for path in files for source in yaml.safe_load(path.read_text())["datasources"]]


def rate_interval(scrape_seconds: float) -> str:
    """Return `$__rate_interval` at a narrow step: four times the data source's scrape interval."""
    return f"{4 * scrape_seconds:g}s"


def scrape_seconds() -> int:
    """Return the scrape interval that the data source names."""
    (source,) = [each for each in datasources() if each["uid"] == "prometheus"]
    return int(source["jsonData"]["timeInterval"].removesuffix("s"))


def as_sent(
    expression: str, dashboard: dict[str, Any], chosen: Mapping[str, str], interval: str
) -> str:
    """Return a query as Grafana sends it; what is not chosen is as at first."""
    text = expression.replace("$__rate_interval", interval)
    for variable in variables(dashboard):
        value = chosen.get(variable["name"], at_first(variable))
        text = re.sub(rf"\${variable['name']}\b", value.replace("\\", r"\\"), text)
    assert "$" not in text, f"{expression}: a variable that the dashboard does not have"
    return text


def at_first(variable: dict[str, Any]) -> str:
    """Return the value that a variable has when the dashboard is opened."""
    value = variable["current"]["value"]
    if value == ["$__all"]:
        value = variable["allValue"]
    assert isinstance(value, str), variable["name"]
    return value


def marks(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what marks moments on all panels: a query for Prometheus, and its title."""
    for mark in dashboard["annotations"]["list"]:
        yield mark["target"]["expr"], mark["titleFormat"]


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[Panel, dict[str, Any]]]:
    """Yield each query for Prometheus with its panel."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            if target["datasource"]["uid"] == "prometheus":
                yield panel, target
