"""What happens to the service, and which alerts fire then: cases for `promtool test rules`.

Each case begins with a healthy service and says what is different. What is expected is the whole
set of alerts that fire, so that one too many is seen as well. tests/test_rules.py runs them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PLACE = {"job": "credenza", "namespace": "credenza-prod"}
POD = PLACE | {"instance": "10.0.0.1:8001", "pod": "credenza-1", "node": "a"}
SECOND = PLACE | {"instance": "10.0.0.2:8001", "pod": "credenza-2", "node": "b"}
STAGING = POD | {"namespace": "credenza-staging", "instance": "10.0.1.1:8001"}
SELF = {"job": "prometheus", "instance": "localhost:9090"}
CLUSTER = {"job": "kube-state-metrics", "instance": "10.0.0.9:8080", "namespace": "credenza-prod"}
KUBELET = {"job": "kubelet", "instance": "10.1.0.1:10250", "node": "a"}
CERTIFICATES = {"job": "cert-manager", "instance": "10.2.0.1:9402"}
STRANGER = PLACE | {"job": "another", "instance": "10.0.0.3:8001", "pod": "a", "node": "a"}
OTHERS = CLUSTER | {"namespace": "others"}
BY = (
    "alertname, severity, job, namespace, instance, slo, kind, pod, node, container, name, "
    "persistentvolumeclaim, deployment, statefulset, horizontalpodautoscaler, cronjob, rule_group, "
    "alertmanager, reason, integration, data_type, exporter"
)
"""The labels that an expected alert is compared by."""

Firing = tuple[tuple[str, str], ...]
Series = Mapping[str, str | None]


def growing(*phases: tuple[float, int]) -> str:
    """Return the values of a counter: by how much it grows at each of so many steps, in turn."""
    value, parts = 0.0, []
    for growth, steps in phases:
        parts.append(f"{value:.12g}+{growth:.12g}x{steps - 1}")
        value += growth * steps
    return " ".join(parts)


def level(*phases: tuple[float | None, int]) -> str:
    """Return the values of a gauge: what it is for so many steps, in turn; None is no sample."""
    return " ".join(f"_x{n}" if value is None else f"{value:g}x{n - 1}" for value, n in phases)


def alert(name: str, severity: str, place: Mapping[str, str] = PLACE, **labels: str) -> Firing:
    """Return an alert as it is expected; one of an instance is given the pod's labels."""
    found = {"alertname": name, "severity": severity} | dict(place) | labels
    return tuple(sorted((key, found[key]) for key in found if key in BY.split(", ")))


def requests(method: str, status: str, handler: str = "/v1/data/{collection}/{id}") -> str:
    """Return a series of requests."""
    return f'http_requests_total{{handler="{handler}",method="{method}",status="{status}"}}'


def within(method: str, bound: str, handler: str = "/v1/data/{collection}/{id}") -> str:
    """Return a bucket of the time that requests take."""
    labels = f'handler="{handler}",le="{bound}",method="{method}"'
    return f"http_request_duration_seconds_bucket{{{labels}}}"


def taken(method: str, handler: str = "/v1/data/{collection}/{id}") -> str:
    """Return the count of the time that requests take."""
    return f'http_request_duration_seconds_count{{handler="{handler}",method="{method}"}}'


def invalidated(bound: str) -> str:
    """Return a bucket of the time that invalidations take."""
    return f'credenza_cache_invalidation_seconds_bucket{{le="{bound}"}}'


def healthy(steps: int, rate: float = 30) -> dict[str, str]:
    """Return the series of a service that does well, with so many reads and writes a step."""
    always, ever = growing((rate, steps)), level((1, steps))
    none = level((0, steps))
    wait = "credenza_database_wait_seconds"
    return {
        "up": ever,
        'credenza_build_info{version="0.1.0"}': ever,
        "credenza_database_up": ever,
        'credenza_database_connections{state="busy"}': level((3, steps)),
        'credenza_database_connections{state="idle"}': level((7, steps)),
        "credenza_database_connections_max": level((10, steps)),
        **{f'{wait}_bucket{{le="{bound}"}}': always for bound in ("0.1", "0.25", "0.5", "+Inf")},
        f"{wait}_count": always,
        **{
            f'credenza_database_errors_total{{kind="{kind}"}}': none
            for kind in ("away", "busy", "failed", "timeout", "refused")
        },
        "credenza_cache_breaker_open": none,
        **{invalidated(bound): always for bound in ("0.1", "0.25", "1.0", "2.5", "+Inf")},
        "credenza_cache_invalidation_seconds_count": always,
        "credenza_cache_heartbeat_timestamp_seconds": none,
        'credenza_requests_refused_total{reason="requests"}': none,
        'credenza_groups_waiting{kind="create"}': none,
        "process_start_time_seconds": level((-86400, steps)),
        "process_resident_memory_bytes": level((1e8, steps)),
        "credenza_memory_limit_bytes": level((2**28, steps)),
        requests("GET", "2xx"): always,
        requests("PUT", "2xx"): always,
        **{within("GET", bound): always for bound in ("0.05", "0.1", "0.25", "+Inf")},
        **{within("PUT", bound): always for bound in ("0.1", "0.25", "0.5", "+Inf")},
        taken("GET"): always,
        taken("PUT"): always,
        requests("GET", "2xx", "/health/ready"): always,
    }


def nothing(steps: int) -> Series:
    """Return a service that is not there."""
    return dict.fromkeys(healthy(steps))


def gone(before: int, after: int) -> Series:
    """Return a service that can be scraped, and then cannot be."""
    return {name: f"{values} stale _x{after}" for name, values in healthy(before).items()}


def at(minute: float, value: float, before: float = 0, steps: int = 60) -> str:
    """Return a gauge that changes at a minute."""
    first = int(2 * minute)
    return level((before, first), (value, steps - first))


@dataclass(frozen=True)
class Case:
    """Something that happens, and what fires at which minutes."""

    name: str
    steps: int
    expected: Mapping[int, tuple[Firing, ...]]
    """By minute."""
    changed: Series = field(default_factory=dict)
    """Series of the pod: other values than those of a healthy one, or None: it is not there."""
    others: Mapping[str, Series] = field(default_factory=dict)
    """Series of other targets, whole, by a name of TARGETS."""
    rate: float = 30
    step: str = "30s"
    every: str = "30s"
    """How often rules are evaluated."""
    without: tuple[str, ...] = ()
    """Files of rules that are not there."""
    values: Mapping[str, float] = field(default_factory=dict)
    """What expressions are at the end."""
    hidden: str = "Watchdog"
    """Alerts that are not looked at."""

    def test(self) -> dict[str, Any]:
        """Return the case as promtool reads it."""
        chosen = f'alertstate="firing", alertname!~"{self.hidden}"'
        pod = {**healthy(self.steps, self.rate), **self.changed}
        found = [*_written(pod, POD), *_written({"up": level((1, self.steps))}, SELF)]
        for name, series in self.others.items():
            found += _written(series, TARGETS[name])
        return {
            "name": self.name,
            "interval": self.step,
            "input_series": found,
            "promql_expr_test": [
                {
                    "expr": f"count by ({BY}) (ALERTS{{{chosen}}})",
                    "eval_time": f"{minute}m",
                    "exp_samples": [
                        {"labels": _selector(dict(each)), "value": 1} for each in firing
                    ],
                }
                for minute, firing in self.expected.items()
            ]
            + [
                {
                    "expr": expression,
                    "eval_time": f"{max(self.expected)}m",
                    "exp_samples": [{"labels": "{}", "value": value}],
                }
                for expression, value in self.values.items()
            ],
        }

    def alerts(self, minute: int | None = None) -> set[str]:
        """Return the names of the alerts that fire, at a minute or at any."""
        minutes = self.expected if minute is None else (minute,)
        return {dict(each)["alertname"] for at in minutes for each in self.expected[at]}


TARGETS = {
    "second": SECOND,
    "staging": STAGING,
    "staging-twin": POD | {"namespace": "credenza-staging"},
    "stranger": STRANGER,
    "prometheus": SELF,
    "cluster": CLUSTER,
    "others": OTHERS,
    "kubelet": KUBELET,
    "cert-manager": CERTIFICATES,
    **{
        f"{place}{job}": {"job": job, "instance": f"{job}-0:1", "namespace": namespace}
        for place, namespace in (("", "credenza-prod"), ("others-", "others"))
        for job in ("alertmanager", "collector", "jaeger", "loki", "node-logs")
    },
    "staging-loki": {"job": "loki", "instance": "loki-0:1", "namespace": "credenza-staging"},
    **{
        f"{place}{job}": {"job": of, "instance": f"{job}-{n}:1", "namespace": "credenza-prod"}
        for job in ("collector", "loki", "node-logs")
        for place, of, n in (("second-", job, 1), ("twin-", "another", 0))
    },
}


def _written(series: Series, target: Mapping[str, str]) -> list[dict[str, str]]:
    found = []
    for name, values in series.items():
        if values is not None:
            metric, _, own = name.partition("{")
            inside = ", ".join(filter(None, [own.removesuffix("}"), _inside(target)]))
            found.append({"series": f"{metric}{{{inside}}}", "values": values})
    return found


def _inside(labels: Mapping[str, str]) -> str:
    return ", ".join(f'{key}="{value}"' for key, value in labels.items())


def _selector(labels: Mapping[str, str]) -> str:
    return f"{{{_inside(labels)}}}"
