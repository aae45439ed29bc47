"""The files of dashboards: conventions, and what panels of logs and traces ask for.

test_dashboards.py has the panels that Prometheus answers, test_dashboard_schema.py has the fields.
"""

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from grafana import DASHBOARDS, GRAFANA, KUBERNETES, datasources, marks, panels, variables
from manifests import ROOT
from promtool import RULE_FILES

NUMBERS = {"timeseries", "stat", "state-timeline", "table"}
LOGS = re.compile(
    r'\{service_name="credenza"\}'
    r'(?: \| (?:request_id|trace_id)(?:!=""|="\$(?:request_id|trace_id)"))+'
)
"""What may be asked of Loki: lines of the service, by the fields that a collector gives them."""

SCRAPED_BY = {
    "kube_": "cluster-metrics",
    "certmanager_": "cluster-metrics",
    "credenza:volume_": "kubelet-metrics",
}
"""Components by what a query for what Kubernetes says has in it."""

ANNOTATION = 256 * 1024
"""Bytes of all annotations of an object; `kubectl apply` keeps what it has applied in one."""

NAMES = pytest.mark.parametrize("name", DASHBOARDS)


def test_each_has_a_uid_of_its_own() -> None:
    """It is that of the file, for links from outside; the tag leads from one to another."""
    assert len(DASHBOARDS) == 6
    for name, dashboard in DASHBOARDS.items():
        assert dashboard["uid"] == f"credenza-{name}"
        (link,) = dashboard["links"]
        assert link["type"] == "dashboards"
        assert link["tags"] == dashboard["tags"] == ["credenza"]
    assert len({each["title"] for each in DASHBOARDS.values()}) == len(DASHBOARDS)


def test_files_are_what_they_are_made_from(tmp_path: Path) -> None:
    """`make check` passes those there are, and names one that is changed, missing or unknown."""

    def check() -> str:
        command = [sys.executable, str(GRAFANA / "make.py"), "--check", f"--folder={tmp_path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (not done.stderr)
        return " ".join(Path(line.split()[0]).name for line in done.stderr.splitlines())

    shutil.copytree(GRAFANA / "dashboards", tmp_path, dirs_exist_ok=True)
    assert check() == ""
    text = (tmp_path / "pods.json").read_text()
    (tmp_path / "pods.json").write_text(text.replace("Memory", "Memories"))
    (tmp_path / "redis.json").unlink()
    (tmp_path / "other.json").write_text(text)
    assert check() == "other.json pods.json redis.json"


@NAMES
def test_nothing_waits_for_an_import(name: str) -> None:
    """It is provisioned as it is, shows the reader's time, and refreshes by itself."""
    dashboard = DASHBOARDS[name]
    assert not {"__inputs", "__requires", "id"} & dashboard.keys()
    assert dashboard["schemaVersion"] == 42  # Grafana 12.3's
    assert dashboard["editable"] is False
    assert dashboard["timezone"] == "browser"
    assert dashboard["refresh"] == "30s"
    assert dashboard["time"] == {"from": "now-1h", "to": "now"}
    assert len(dashboard["description"].split()) > 10


@NAMES
def test_each_data_source_is_provisioned(name: str) -> None:
    """Each panel, query and variable names a data source by its uid."""
    known = {source["uid"] for source in datasources()}
    named: list[dict[str, str]] = [*_named(DASHBOARDS[name])]
    asked = [variable for variable in variables(DASHBOARDS[name]) if variable["type"] == "query"]
    expected = sum(1 + len(panel["targets"]) for panel in panels(DASHBOARDS[name]))
    assert len(named) == expected + len(asked) + len([*marks(DASHBOARDS[name])])
    assert {source["uid"] for source in named} <= known
    assert all(source["type"] == source["uid"] for source in named)
    for panel in panels(DASHBOARDS[name]):
        assert panel["targets"], panel["title"]
        assert all(each["datasource"] == panel["datasource"] for each in panel["targets"])


def _named(value: Any) -> Iterator[dict[str, str]]:
    """Yield each data source that is named anywhere in JSON."""
    if isinstance(value, dict):
        if "datasource" in value:
            yield value["datasource"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _named(item)


@NAMES
def test_panels_say_what_to_look_for(name: str) -> None:
    """Each panel has a title, a description, and a unit where it shows numbers."""
    for panel in panels(DASHBOARDS[name]):
        assert panel["title"]
        assert len(panel["description"].split()) > 5, panel["title"]
        unit = panel["fieldConfig"]["defaults"].get("unit", "")
        assert bool(unit) == (panel["type"] in NUMBERS), panel["title"]
    titles = [panel["title"] for panel in panels(DASHBOARDS[name])]
    assert len(set(titles)) == len(titles)


@NAMES
def test_panels_say_which_component_they_need(name: str) -> None:
    """What Kubernetes says is empty without the component that scrapes it, and the words say so."""
    found = 0
    for panel in panels(DASHBOARDS[name]):
        asked = " ".join(target.get("expr", "") for target in panel["targets"])
        needed = {SCRAPED_BY[kind] for kind in KUBERNETES.findall(asked)}
        told = set(re.findall(r"Empty without the component ([\w-]+)\.", panel["description"]))
        assert told == needed, panel["title"]
        found += bool(needed)
    assert found == (15 if name == "pods" else 0)


@pytest.mark.parametrize(
    ("title", "records"),
    [
        ("Least free space", ["credenza:volume_full:ratio", "credenza:volume_low:ratio"]),
        ("Last good backup", ["credenza:backup_age:seconds"]),
        ("Restarts of containers within an hour", ["credenza:container_restarts:count"]),
    ],
)
def test_colours_begin_where_alerts_do(title: str, records: list[str]) -> None:
    """Bounds of what Kubernetes says are those that the rules have."""
    bounds = {
        rule["record"]: rule["expr"] for rule in RULE_FILES["targets.yml"]["groups"][0]["rules"]
    }
    (panel,) = [each for each in panels(DASHBOARDS["pods"]) if each["title"] == title]
    _, *steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [f"vector({step['value']})" for step in steps] == [bounds[name] for name in records]


@NAMES
def test_panels_have_a_place_of_their_own(name: str) -> None:
    """No two panels cover each other, none stands outside of the 24 columns, each has an id."""
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = cells(panel["gridPos"])
        assert not place & places, panel["title"]
        places |= place
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids)


def cells(place: dict[str, int]) -> set[tuple[int, int]]:
    """Return the cells of the grid, 24 wide, that a panel takes."""
    assert place["x"] + place["w"] <= 24
    columns, rows = (range(place[at], place[at] + place[size]) for at, size in ("xw", "yh"))
    return set(itertools.product(columns, rows))


@NAMES
def test_tables_show_what_is_asked(name: str) -> None:
    """Each number that is asked has a column, and each column of a number a query."""
    for panel in panels(DASHBOARDS[name]):
        asked = {f"Value #{each['refId']}" for each in panel["targets"] if each.get("instant")}
        for change in panel.get("transformations", ()):
            if change["id"] == "organize" and len(asked) > 1:
                shown = {column for column in change["options"]["includeByName"] if "#" in column}
                assert shown == asked


@NAMES
def test_links_lead_to_a_dashboard_and_its_variables(name: str) -> None:
    """A link names a uid that there is, and sets variables that it has."""
    found = [
        property_["value"]
        for panel in panels(DASHBOARDS[name])
        for override in panel["fieldConfig"]["overrides"]
        for property_ in override["properties"]
        if property_["id"] == "links"
    ]
    assert len(found) == (2 if name == "request" else 0)
    for link in itertools.chain(*found):
        url = urlsplit(link["url"].replace("${__url_time_range}", "from=now-1h"))
        (target,) = [each for each in DASHBOARDS.values() if url.path == f"/d/{each['uid']}"]
        known = {f"var-{variable['name']}" for variable in variables(target)}
        sent = parse_qs(url.query)
        assert sent.keys() - {"from"} == {"var-request_id", "var-trace_id"} <= known
        assert sent["var-trace_id"] == ["${__value.raw}"]


def test_logs_are_asked_by_their_fields() -> None:
    """Each query for Loki is about this service, by its request id or its trace id."""
    asked = [target["expr"] for target in _targets("loki")]
    assert len(asked) == 3
    assert all(LOGS.fullmatch(query) for query in asked), asked
    assert not LOGS.fullmatch(asked[0].replace("service_name", "service"))
    assert not LOGS.fullmatch(asked[0].replace("request_id", "requestid"))


def test_traces_are_asked_as_they_are_sent() -> None:
    """One is shown by its id, others are found by the attribute that a span has of its request."""
    search, shown = _targets("jaeger")
    assert shown["query"] == "$trace_id"
    assert search["queryType"] == "search"
    attribute, value = search["tags"].split("=")
    assert value == '"$request_id"'
    sources = "".join(path.read_text() for path in (ROOT / "src/credenza").rglob("*.py"))
    assert f'"{attribute}"' in sources
    assert f'"service.name": "{search["service"]}"' in sources


def _targets(source: str) -> list[dict[str, Any]]:
    return [
        target
        for panel in panels(DASHBOARDS["request"])
        for target in panel["targets"]
        if target["datasource"]["uid"] == source
    ]


def test_kubectl_can_keep_what_it_has_applied() -> None:
    """All dashboards are one ConfigMap, and fit into the annotation of `kubectl apply`."""
    data = {path.name: path.read_text() for path in (GRAFANA / "dashboards").iterdir()}
    assert len(json.dumps({"data": data}).encode()) < ANNOTATION - 8 * 1024


def test_the_first_page_is_there() -> None:
    """Grafana begins with a dashboard that is provisioned."""
    deployment = yaml.safe_load((GRAFANA / "deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    values = {each["name"]: each.get("value") for each in container["env"]}
    home = Path(values["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    places = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert str(home.parent) == places["dashboards"]
    assert home.stem in DASHBOARDS


def test_the_cluster_names_the_job_as_compose_does() -> None:
    """A pod's job is its name's label, and that is the job of the Compose file."""
    folder = ROOT / "monitoring/prometheus"
    cluster = yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]
    compose = yaml.safe_load((folder / "compose.yml").read_text())["scrape_configs"]
    rules = {
        rule["target_label"]: rule["source_labels"]
        for job in cluster
        for rule in job.get("relabel_configs", [])
        if "target_label" in rule
    }
    assert rules["job"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_name"]
    assert {"namespace", "pod", "node"} <= rules.keys()
    deployment = yaml.safe_load((ROOT / "k8s/base/app/deployment.yaml").read_text())
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] in {job["job_name"] for job in compose}


def test_each_metric_of_the_service_is_shown() -> None:
    """No series that begins with `credenza_` is without a panel."""
    page = (ROOT / "docs/reference/metrics.md").read_text()
    names = re.findall(r"(?m)^\| `(credenza_\w+)`", page)
    text = "".join(path.read_text() for path in (GRAFANA / "dashboards").iterdir())
    assert len(names) > 15
    shown = {name for name in names if re.search(rf"\b{name}(_bucket|_sum|_count)?\{{", text)}
    assert set(names) == shown
