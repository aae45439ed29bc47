"""What rules ask for is there: names, labels and bounds are those that a real service shows.

A real Prometheus loads the rules and scrapes the service.
"""

import asyncio
import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from conftest import Serve
from databases import create_migrated
from expressions import NAMES, Seen, unknown
from manifests import one, render_with
from prometheus_cases import PROMETHEUS
from promtool import RULE_FILES
from scraping import Labels, Prometheus, use, use_in_vain
from servers import Postgres, Valkey, free_port, until
from service import Running
from service_cases import SERVICE
from shown import MATCHER, OF_TARGETS
from slo_bounds import BOUNDS
from slo_cases import LONG, SHORT
from test_docs import ROOT
from test_retention import BESIDE, SERIES

OWN = [
    rule
    for name, file in RULE_FILES.items()
    if name not in {"platform.yml", "observers.yml"}
    for group in file["groups"]
    for rule in group["rules"]
]
"""All but those that test_platform_metrics.py and test_observer_metrics.py hold against sources."""

CASES = (*SHORT, *BOUNDS, *LONG, *SERVICE, *PROMETHEUS)
RECORDED = {rule["record"] for rule in OWN if "record" in rule}
PAGES = [ROOT / f"docs/runbooks/{rule['alert']}.md" for rule in OWN if "alert" in rule]
OF_FAILURES = 'status="5xx"'
"""What a service shows once something has failed; errors of Redis have their series before."""

ADAPTER = ROOT / "k8s/components/custom-metrics-hpa/adapter-rule.yaml"


@pytest.fixture
def service(serve: Serve, postgres: Postgres, valkey: Valkey) -> Running:
    """A service that has a database, Redis, and a port for metrics."""
    url = postgres.database(asyncio.run(create_migrated(postgres)))
    return serve(metrics_port=free_port(), database_url=url, redis_url=valkey.url)


@pytest.fixture
def prometheus(folder: Path, service: Running) -> Iterator[Prometheus]:
    """Prometheus, which scrapes it."""
    server = Prometheus(folder, {f"127.0.0.1:{service.settings['metrics_port']}": {}}).start()
    yield server
    server.stop()


def told() -> list[str]:
    """Return all expressions of rules, and the pages that tell what to ask."""
    return [rule["expr"] for rule in OWN] + [page.read_text() for page in PAGES]


def bounds() -> list[str]:
    """Return the buckets that the bounds of the SLOs choose, as selectors."""
    metric = "http_request_duration_seconds_bucket"
    metrics = {"freshness": "credenza_cache_invalidation_seconds_bucket"}
    rules = [rule["labels"] for rule in OWN if rule.get("record") == "credenza:slo_bound:seconds"]
    return [f'{metrics.get(each["slo"], metric)}{{le="{each["le"]}"}}' for each in rules]


def strange(seen: Seen) -> set[str]:
    """Return series of the cases for promtool whose name, labels or bucket no real one has."""
    forms = {(name, *_form(labels)) for name, series in seen.items() for labels in series}
    used = {each["series"] for case in CASES for each in case.test()["input_series"]}
    faults = set()
    for series in used:
        name, _, inside = series.partition("{")
        labels = {label: value for label, _, value in MATCHER.findall(inside)}
        if (name, *_form(labels)) not in forms:
            faults.add(series)
    return faults


def _form(labels: Labels) -> tuple[str, ...]:
    """Return the names of the labels that are a series' own, and its bound."""
    own = sorted(set(labels) - OF_TARGETS)
    return (*own, labels.get("le", ""))


@pytest.mark.timeout(300)
def test_rules_ask_for_what_there_is(
    service: Running, prometheus: Prometheus, postgres: Postgres, valkey: Valkey
) -> None:
    """Each rule evaluates; each name, label, value and bound that one asks for is there.

    Those of failures are once Redis and the database have been away; until then nothing fires.
    """
    names, expected = itertools.count(1), [*told(), *bounds()]
    of_failures = [text for text in expected if OF_FAILURES in text]
    with service.client() as client:
        until(lambda: client.get("/health").json()["status"] == "ok", "Redis is not used")

        def known() -> bool:
            use(client, names)
            return not unknown(set(expected) - set(of_failures), prometheus.seen())

        with suppress(TimeoutError):
            until(known, "something that rules ask for")
        seen = prometheus.seen()
        assert unknown(set(expected) - set(of_failures), seen) == set()
        assert all(unknown([text], seen) for text in of_failures)
        until(lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"}, "good health")
        assert_nothing_fires(prometheus)
        use_in_vain(client, names, postgres, valkey)
    with suppress(TimeoutError):
        until(lambda: not unknown(of_failures, prometheus.seen()), "failures")
    seen = prometheus.seen()
    assert unknown(expected, seen) == set()
    assert seen.keys() >= RECORDED
    assert strange(seen) == set()
    assert_a_replica_has_no_more_series(seen)
    assert_a_renamed_metric_is_seen(seen)
    assert_the_autoscaler_is_answered(prometheus)


def assert_a_replica_has_no_more_series(seen: Seen) -> None:
    """Fail where there are more series than the space for samples is computed for."""
    counted = [
        name
        for name, series in seen.items()
        for labels in series
        if labels.get("job") == "credenza" and not name.startswith(("ALERTS", "credenza:"))
    ]
    assert 0.9 * SERIES < len(counted) <= SERIES
    others = [name for name, series in seen.items() for _ in series]
    assert len(others) - len(counted) < BESIDE


def assert_a_renamed_metric_is_seen(seen: Seen) -> None:
    """Fail unless each metric that a rule asks for is missed where the service calls it another."""
    asked = {name for text in told() for name in NAMES.findall(text)}
    for name in asked - RECORDED:
        without = {other: series for other, series in seen.items() if other != name}
        assert name in unknown(told(), without), name
    without_le = {
        name: [labels for labels in series if labels.get("le") != "0.25"]
        for name, series in seen.items()
    }
    assert any("le=0.25" in fault for fault in unknown(bounds(), without_le))
    assert unknown(['credenza_database_up{job="credenza", stage="x"}'], seen)
    assert unknown(["sum by (handle) (http_requests_total)"], seen) == {"handle"}


def assert_the_autoscaler_is_answered(prometheus: Prometheus) -> None:
    """Fail unless the adapter's rule has a number, under the name that the autoscaler asks for."""
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    series = rule["seriesQuery"].partition("{")[0]
    parts = {"Series": series, "LabelMatchers": 'job="credenza"', "GroupBy": "instance"}
    query = re.sub(r"<<\.(\w+)>>", lambda found: parts[found[1]], rule["metricsQuery"])
    assert unknown([query], prometheus.seen()) == set()
    assert len(prometheus.series(query)) == 1
    name = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1"), series)
    scaler = one(render_with("custom-metrics-hpa", "staging"), "HorizontalPodAutoscaler")
    assert name in {each["pods"]["metric"]["name"] for each in scaler["spec"]["metrics"][2:]}


def assert_nothing_fires(prometheus: Prometheus) -> None:
    """Fail unless the alert that always fires is the only one; latency may be the test's."""
    firing = {
        each["labels"]["alertname"]
        for each in prometheus.get("alerts")["alerts"]
        if each["state"] == "firing"
    }
    assert {name for name in firing if "Latency" not in name} == {"Watchdog"}
