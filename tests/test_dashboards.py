"""Dashboards: each panel shows data of a real service through a real Prometheus.

Grafana itself is not here: variables are replaced as it would, and its API is Prometheus's own.
"""

import asyncio
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from conftest import Serve
from databases import create_migrated
from servers import Postgres, Process, Valkey, free_port, until
from service import Running

ROOT = Path(__file__).parent.parent
GRAFANA = ROOT / "monitoring/grafana"
PROMETHEUS = ROOT / "monitoring/prometheus"
DASHBOARDS = {
    path.name: json.loads(path.read_text())
    for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
LABEL = re.compile(r"\{\{(\w+)\}\}")
LINES = {"Content-Type": "application/x-ndjson"}
Panel = dict[str, Any]


class Prometheus(Process):
    """Debian's Prometheus with the shipped configuration, at the addresses of this run."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        super().__init__(folder)
        configuration = yaml.safe_load((PROMETHEUS / "compose.yml").read_text())
        configuration["global"] = {"scrape_interval": "500ms"}
        for job in configuration["scrape_configs"]:
            if job["job_name"] == "credenza":
                job["static_configs"][0]["targets"] = targets
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")

    def command(self) -> list[str]:
        """Return the command line."""
        return [
            *("prometheus", "--config.file", str(self.folder / "prometheus.yml")),
            *("--storage.tsdb.path", str(self.folder / "data")),
            *("--web.listen-address", f"127.0.0.1:{self.port}"),
        ]

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer; fail with what it says where it refuses."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        answer = httpx2.get(url, params=parameters, timeout=10)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def series(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of each series that has a number now."""
        found = self.get("query", query=expression)["result"]
        return [item["metric"] for item in found if math.isfinite(float(item["value"][1]))]


def panels(dashboard: dict[str, Any]) -> Iterator[Panel]:
    """Yield the panels of a dashboard that are no rows."""
    for panel in dashboard["panels"]:
        yield from (item for item in (panel, *panel.get("panels", ())) if item["type"] != "row")


def variables(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the variables of a dashboard."""
    found: list[dict[str, Any]] = dashboard["templating"]["list"]
    return found


def datasources() -> list[dict[str, Any]]:
    """Return the data sources that are provisioned."""
    files = (GRAFANA / "provisioning/datasources").glob("*.yaml")
    return [source for path in files for source in yaml.safe_load(path.read_text())["datasources"]]


def rate_interval() -> str:
    """Return `$__rate_interval` at a narrow step: four times the data source's scrape interval."""
    (source,) = datasources()
    return f"{4 * int(source['jsonData']['timeInterval'].removesuffix('s'))}s"


def as_sent(expression: str, dashboard: dict[str, Any]) -> str:
    """Return a query as Grafana sends it with each variable at All."""
    text = expression.replace("$__rate_interval", rate_interval())
    for variable in variables(dashboard):
        text = re.sub(rf"\${variable['name']}\b", variable["allValue"], text)
    assert "$" not in text, f"{expression}: a variable that the dashboard does not have"
    return text


def queries() -> dict[str, set[str]]:
    """Return each query of each panel as it is sent, with the labels that its legend shows."""
    return {
        as_sent(target["expr"], dashboard): set(LABEL.findall(target["legendFormat"]))
        for dashboard in DASHBOARDS.values()
        for panel in panels(dashboard)
        for target in panel["targets"]
    }


@pytest.fixture
def replicas(serve: Serve, postgres: Postgres, valkey: Valkey) -> list[Running]:
    """Two services on one database and one cache, with a port for metrics each."""
    url = postgres.database(asyncio.run(create_migrated(postgres)))
    settings = {"database_url": url, "redis_url": valkey.url}
    started = [serve(wait=False, metrics_port=free_port(), **settings) for _ in range(2)]
    for replica in started:
        replica.until_ready()
    return started


@pytest.fixture
def prometheus(folder: Path, replicas: list[Running]) -> Iterator[Prometheus]:
    """Prometheus, which scrapes the two."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs Debian's Prometheus: apt-get install prometheus")
    targets = [f"127.0.0.1:{replica.settings['metrics_port']}" for replica in replicas]
    server = Prometheus(folder, targets).start()
    yield server
    server.stop()


def use(client: httpx2.Client, names: Iterator[int]) -> None:
    """Send each handler requests: one that succeeds and, where it can fail, one that fails."""
    name = f"n{next(names)}"
    for path in ("/data", f"/v1/data/{name}"):
        client.post(path, json={"n": 1}).raise_for_status()
        client.post(path, content=b"{")
        client.get(path).raise_for_status()
        client.get(f"{path}?limit=0")
        client.post(f"{path}/_import", content=b"1\n2\n", headers=LINES).raise_for_status()
        client.post(f"{path}/_import", content=b"{\n", headers=LINES)
        client.get(f"{path}/_export").raise_for_status()
        client.get(f"{path}/_export?order=$none")
        use_a_document(client, f"{path}/{name}")
    for path in ("/v1/collections", f"/v1/collections/{name}"):
        client.get(path).raise_for_status()
        client.get(f"{path}?limit=x")
    client.get("/v1/collections/nothing")
    for path in ("/v1", "/health", "/health/live", "/health/ready", "/health/startup"):
        client.get(path).raise_for_status()
        client.post(path)


def use_a_document(client: httpx2.Client, path: str) -> None:
    """Write, read, change and delete a document, and fail at each."""
    for body in ({"n": 1}, {"n": 2}):
        client.put(path, json=body).raise_for_status()
        for _ in range(3):
            client.get(path).raise_for_status()
        client.patch(path, json={"m": 1}).raise_for_status()
    for method in ("PUT", "PATCH", "DELETE"):
        assert client.request(method, path, headers={"If-Match": '"1"'}, json=1).status_code == 412
    client.delete(path).raise_for_status()
    assert client.get(path).status_code == 404


@pytest.mark.timeout(300)
def test_every_panel_shows_data(replicas: list[Running], prometheus: Prometheus) -> None:
    """Each query parses and gives numbers with the labels of its legend, once a service is used."""
    missing, names = queries(), itertools.count(1)
    assert len(missing) > 20

    def shown() -> bool:
        for replica in replicas:
            with replica.client() as client:
                use(client, names)
        for query, legend in list(missing.items()):
            found = prometheus.series(query)
            if found and all(legend <= labels.keys() for labels in found):
                del missing[query]
        return not missing

    with suppress(TimeoutError):
        until(shown, "panels without data")
    assert missing == {}
    assert_each_handler_is_seen(replicas[0], prometheus)
    assert_variables_have_values(prometheus)


def assert_each_handler_is_seen(replica: Running, prometheus: Prometheus) -> None:
    """Fail unless each path of the API has been asked, those with an id in vain too."""
    with replica.client() as client:
        paths = set(client.get("/openapi.json").json()["paths"])
    for status, expected in (("2xx", paths), ("4xx", {path for path in paths if "{" in path})):
        until(
            lambda status=status, expected=expected: (  # type: ignore[misc]  # bound to the turn
                expected
                <= {
                    labels["handler"]
                    for labels in prometheus.series(f'http_requests_total{{status="{status}"}}')
                }
            ),
            f"not each handler has answered {status}",
        )


def assert_variables_have_values(prometheus: Prometheus) -> None:
    """Fail unless each variable offers something to choose, of both replicas."""
    for dashboard in DASHBOARDS.values():
        for variable in variables(dashboard):
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert asked, variable["query"]
            values = prometheus.get(f"label/{asked[2]}/values", **{"match[]": asked[1]})
            assert len(values) == 2, variable["name"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_data_sources_are_provisioned(name: str) -> None:
    """Each panel, query and variable names a data source by an id that the provisioning has."""
    uids = {source["uid"] for source in datasources()}
    named = re.findall(r'"datasource": \{[^}]*?"uid": "([^"]*)"', json.dumps(DASHBOARDS[name]))
    expected = sum(1 + len(panel["targets"]) for panel in panels(DASHBOARDS[name]))
    assert len(named) == expected + len(variables(DASHBOARDS[name]))
    assert set(named) <= uids


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_say_what_to_look_for(name: str) -> None:
    """Each panel has a description, a unit and a place of its own; nothing waits for an import."""
    dashboard = DASHBOARDS[name]
    assert not {"__inputs", "__requires", "id"} & dashboard.keys()
    assert dashboard["schemaVersion"] >= 41  # Grafana 12's
    places: set[tuple[int, int]] = set()
    for panel in panels(dashboard):
        assert len(panel["description"].split()) > 5, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        place = cells(panel["gridPos"])
        assert not place & places, panel["title"]
        places |= place
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def cells(place: dict[str, int]) -> set[tuple[int, int]]:
    """Return the cells of the grid, 24 wide, that a panel takes."""
    assert place["x"] + place["w"] <= 24
    columns, rows = (range(place[at], place[at] + place[size]) for at, size in ("xw", "yh"))
    return set(itertools.product(columns, rows))


def test_the_cluster_names_the_job_as_compose_does() -> None:
    """A pod's job is its name's label, and that is the job of the Compose file."""
    cluster = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    compose = yaml.safe_load((PROMETHEUS / "compose.yml").read_text())["scrape_configs"]
    (rule,) = [
        rule
        for job in cluster
        for rule in job.get("relabel_configs", [])
        if rule.get("target_label") == "job"
    ]
    assert rule["source_labels"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_name"]
    deployment = yaml.safe_load((ROOT / "k8s/base/app/deployment.yaml").read_text())
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] in {job["job_name"] for job in compose}
