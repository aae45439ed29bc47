"""Dashboards: each panel shows data of a real service through a real Prometheus with its rules.

Grafana itself is not here: variables are replaced as it would, and its API is Prometheus's own.
What Kubernetes says is what it has said: tests/exposed, scraped as is shipped (sources.py). Panels
of logs and traces are in test_dashboard_files.py.
"""

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from collectors import collecting
from conftest import Serve
from credenza.app import Service, create_app
from credenza.settings import Settings
from databases import create_migrated
from expressions import unknown
from grafana import (
    DASHBOARDS,
    KUBERNETES,
    LABEL,
    as_sent,
    marks,
    queries,
    rate_interval,
    scrape_seconds,
    variables,
)
from manifests import Object
from scraping import Labels, Prometheus, use, use_in_vain
from servers import Postgres, Valkey, free_port, until
from service import Running
from shown import MATCHER, OF_TARGETS
from sources import NAMESPACE, Shown, add_jobs, platform_jobs, showing

NAMED = re.compile(r"\b((?:credenza|http|kube|process|scrape)[_:][\w:]+|up|ALERTS)\b(?=[{)])")
"""A metric in a query."""

SAMPLED = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}

AT_OTHER_TIMES = {("/v1", "503"), ("/health/startup", "503")}
"""Answers under overload alone, and before the start has ended."""

Route = tuple[str, str]
"""Method and path."""

Chosen = Mapping[str, str]
Scrape = Callable[..., Prometheus]


class _Cluster(Shown):
    """Shows all of it of another namespace too, as kube-state-metrics of a whole cluster does."""

    def text(self, job: str) -> bytes:
        text = super().text(job)
        return text + text.replace(NAMESPACE.encode(), b"another")


def place(number: int) -> dict[str, str]:
    """Return the labels that a cluster's Prometheus gives a replica."""
    return {"namespace": NAMESPACE, "pod": f"credenza-{number}", "node": f"node-{number}"}


def address(replica: Running) -> str:
    """Return where a replica shows its metrics."""
    return f"127.0.0.1:{replica.settings['metrics_port']}"


@pytest.fixture
def replicas(serve: Serve, postgres: Postgres, valkey: Valkey) -> Iterator[list[Running]]:
    """Two services on one database and one cache, with a port for metrics each, and traces."""
    url = postgres.database(asyncio.run(create_migrated(postgres)))
    with collecting() as collector:
        settings = {
            "database_url": url,
            "redis_url": valkey.url,
            "otel_exporter_otlp_endpoint": collector.url,
        }
        started = [serve(wait=False, metrics_port=free_port(), **settings) for _ in range(2)]
        for replica in started:
            replica.until_ready()
        yield started
        for replica in started:  # while there is somebody to take their last traces
            replica.stop()


@pytest.fixture
def scrape(folder: Path) -> Iterator[Scrape]:
    """Start Prometheus with targets and their labels, and with more jobs."""
    started: list[Prometheus] = []

    def run(name: str, targets: Mapping[str, Labels], jobs: Sequence[Object] = ()) -> Prometheus:
        place = folder / name
        place.mkdir()
        started.append(add_jobs(Prometheus(place, targets), jobs).start())
        return started[-1]

    yield run
    for server in started:
        server.stop()


@pytest.fixture
def kubernetes() -> Iterator[list[Object]]:
    """Jobs that scrape what Kubernetes has said."""
    with showing(_Cluster) as port:
        yield platform_jobs(port)


def asked(chosen: Chosen) -> dict[str, set[str]]:
    """Return each query of each dashboard as it is sent, with the labels that are shown of it."""
    interval = rate_interval(scrape_seconds())
    told = [
        (dashboard, *each)
        for dashboard in DASHBOARDS.values()
        for each in (
            *((target["expr"], target["legendFormat"]) for _, target in queries(dashboard)),
            *marks(dashboard),
        )
    ]
    return {
        as_sent(query, dashboard, chosen, interval): set(LABEL.findall(shown))
        for dashboard, query, shown in told
    }


@pytest.mark.timeout(400)
def test_every_panel_shows_data(
    replicas: list[Running],
    scrape: Scrape,
    kubernetes: list[Object],
    postgres: Postgres,
    valkey: Valkey,
) -> None:
    """Each query parses and gives numbers with the labels of its legend, once a service is used.

    It does so at All as when one replica is chosen, in a cluster as under Compose, where there is
    no Kubernetes to say anything.
    """
    cluster = scrape(
        "cluster",
        {address(replica): place(number) for number, replica in enumerate(replicas)},
        kubernetes,
    )
    compose = scrape("compose", {address(replica): {} for replica in replicas})
    one = place(0) | {"instance": address(replicas[0])}
    missing = [
        (cluster, asked({})),
        (cluster, asked(one)),
        (compose, {query: set[str]() for query in asked({}) if not KUBERNETES.search(query)}),
    ]
    assert len(missing[0][1]) > 80
    assert len(missing[0][1]) - len(missing[2][1]) > 15
    names = itertools.count(1)

    def shown() -> bool:
        for replica in replicas:
            with replica.client(headers=SAMPLED) as client:
                use(client, names)
        for prometheus, expected in missing:
            for query, legend in list(expected.items()):
                found = prometheus.series(query)
                if found and all(legend <= labels.keys() for labels in found):
                    del expected[query]
        return not any(expected for _, expected in missing)

    with suppress(TimeoutError):
        until(shown, "panels without data")
    assert [expected for _, expected in missing] == [{}, {}, {}]
    assert_only_the_chosen_is_shown(cluster, one["pod"], one)
    with replicas[0].client(headers=SAMPLED) as client:
        use_in_vain(client, names, postgres, valkey)
    assert_each_route_is_seen(replicas[0], cluster)
    assert_values_are_there(cluster)
    assert_variables_have_values(cluster)
    assert_a_renamed_metric_is_seen(cluster)
    assert_exemplars_are_there(cluster)
    assert_kubernetes_says_it_of_the_service(cluster)
    assert [
        query for query in asked({}) if KUBERNETES.search(query) and compose.series(query)
    ] == []


def assert_only_the_chosen_is_shown(prometheus: Prometheus, pod: str, chosen: Chosen) -> None:
    """Fail unless each query that tells replicas apart shows the chosen one alone."""
    told = [query for query, legend in asked(chosen).items() if "pod" in legend]
    assert len(told) > 15
    for query in told:
        assert {labels["pod"] for labels in prometheus.series(query)} == {pod}, query


def assert_kubernetes_says_it_of_the_service(prometheus: Prometheus) -> None:
    """Fail unless what is shown by namespace is of the one with the service alone."""
    told = [query for query in asked({}) if KUBERNETES.search(query)]
    found = [labels for query in told for labels in prometheus.series(query)]
    assert {labels["namespace"] for labels in found if "namespace" in labels} == {NAMESPACE}
    assert "another" in {
        labels["namespace"] for labels in prometheus.series("kube_deployment_spec_replicas")
    }


def assert_each_route_is_seen(replica: Running, prometheus: Prometheus) -> None:
    """Fail unless each method of each path has answered whatever it can: 2xx, 4xx, 5xx."""
    expected = answered(replica)

    def missing() -> dict[str, set[Route]]:
        seen = prometheus.seen()["http_requests_total"]
        found = {(each["status"], each["method"], each["handler"]) for each in seen}
        return {
            status: unseen
            for status, wanted in expected.items()
            if (unseen := {route for route in wanted if (status, *route) not in found})
        }

    with suppress(TimeoutError):
        until(lambda: not missing(), "routes that have not answered so")
    assert missing() == {}


def answered(replica: Running) -> dict[str, set[Route]]:
    """Return the routes that can answer each class of status; 401 and 403 come before a route."""
    with replica.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    found: dict[str, set[Route]] = {"2xx": set(), "4xx": set(), "5xx": set()}
    for method, path in asyncio.run(routes()):
        operations = paths.get(path, {"get": {"responses": {"200": {}}}})
        operation = operations.get(method.lower()) or operations["get"]  # a HEAD as its GET
        for status in operation["responses"].keys() - {"304", "401", "403"}:
            if (path, status) not in AT_OTHER_TIMES:
                found[f"{status[0]}xx"].add((method, path))
    assert {(method.upper(), path) for path in paths for method in paths[path]} <= found["2xx"]
    return found


async def routes() -> list[Route]:
    """Return all routes, those that are not documented too; a pool of connections needs a loop."""
    api = create_app(Service(Settings(), url="postgresql://nobody@127.0.0.1/none")).app.app
    return [(method, route.path) for route in api.state.routes for method in route.methods]


def assert_values_are_there(prometheus: Prometheus) -> None:
    """Fail unless each name, label and value that a query asks for is there, and missed if not."""
    with suppress(TimeoutError):
        until(lambda: not unknown(asked({}), prometheus.seen()), "something that queries ask for")
    seen = prometheus.seen()
    assert unknown(asked({}), seen) == set()
    for query in asked({}):
        for label, operator, value in MATCHER.findall(query):
            if label not in OF_TARGETS:
                renamed = query.replace(f'{operator}"{value}"', f'{operator}"{value}_of_old"')
                assert unknown([renamed], seen), renamed


def assert_variables_have_values(prometheus: Prometheus) -> None:
    """Fail unless each variable that is asked for offers what there is, of both replicas."""
    expected = {"job": ["credenza"], "namespace": [NAMESPACE], "pod": ["credenza-0", "credenza-1"]}
    for dashboard in DASHBOARDS.values():
        for variable in variables(dashboard):
            if variable["type"] == "textbox":
                continue
            text = as_sent(variable["query"]["query"], dashboard, {}, "")
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", text)
            assert found, text
            values = prometheus.get(f"label/{found[2]}/values", **{"match[]": found[1]})
            assert values == expected.get(variable["name"], values)
            assert len(values) == (1 if variable["name"] in {"job", "namespace"} else 2)


def assert_a_renamed_metric_is_seen(prometheus: Prometheus) -> None:
    """Fail unless each metric that a query asks for is missed where it has another name."""
    for query in asked({}):
        names = set(NAMED.findall(query))
        assert names, query
        for name in names:
            renamed = re.sub(rf"\b{name}\b(?=[{{)])", f"{name}_of_old", query)
            assert renamed != query
            assert prometheus.series(renamed) == [], renamed


def assert_exemplars_are_there(prometheus: Prometheus) -> None:
    """Fail unless queries with exemplars lead to traces, as Grafana asks for them."""
    now = time.time()
    found: list[Any] = [
        prometheus.get("query_exemplars", query=query, start=str(now - 3600), end=str(now))
        for dashboard in DASHBOARDS.values()
        for _, target in queries(dashboard)
        if target.get("exemplar")
        for query in [as_sent(target["expr"], dashboard, {}, "1m")]
    ]
    assert len(found) == 2
    for series in found:
        traces = {each["labels"]["trace_id"] for item in series for each in item["exemplars"]}
        assert SAMPLED["traceparent"].split("-")[1] in traces
