"""Cases of the alerts of Prometheus about itself.

They run without slo.yml, as those of the service do.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rule_cases import (
    CERTIFICATES,
    CLUSTER,
    KUBELET,
    SELF,
    Case,
    Firing,
    Series,
    alert,
    growing,
    level,
)

STEPS = 60
"""Half an hour."""

GROUP = '{rule_group="/etc/prometheus-rules/slo.yml;credenza-sli"}'
RECEIVER = '{alertmanager="http://alertmanager:9093/api/v2/alerts"}'
DROPPED = "prometheus_notifications_dropped_total"
UNSENT = f"prometheus_notifications_errors_total{RECEIVER}"
FAILED = f"prometheus_rule_evaluation_failures_total{GROUP}"
MISSED = f"prometheus_rule_group_iterations_missed_total{GROUP}"
LOADED = "prometheus_config_last_reload_successful"
STORAGE = [
    f"prometheus_tsdb_{name}_total"
    for name in (
        *("wal_corruptions", "wal_writes_failed", "wal_truncations_failed"),
        *("checkpoint_creations_failed", "compactions_failed", "head_truncations_failed"),
        "reloads_failures",
    )
]
BROKEN = alert("PrometheusStorageFails", "ticket", SELF)


def itself(
    name: str, silent: Sequence[int], fires: Sequence[int], changed: Series, severity: str
) -> Case:
    """Return a case of Prometheus itself: at which minutes an alert is silent, and fires."""
    labels = dict(re.findall(r'(\w+)="([^"]*)"', next(iter(changed))))
    found: dict[int, tuple[Firing, ...]] = dict.fromkeys((*silent, 9, 35), ())
    found |= {minute: (alert(name, severity, SELF, **labels),) for minute in fires}
    title = f"Prometheus: {', '.join(changed)}"
    others = {"prometheus": changed}
    return Case(title, 150, dict(sorted(found.items())), others=others, step="15s")


ONE = 0.96
"""A failure as `increase()` tells it, which extrapolates: it is seldom whole."""

OVER_AND_OVER = growing((0, 40), (ONE, 1), (0, 21), (ONE, 1), (0, 87))
"""Each five and a half minutes: an increase is seen for six, but for an interval of scrapes."""

SELDOM = growing((0, 40), (ONE, 1), (0, 43), (ONE, 1), (0, 65))
"""Each eleven minutes."""

POOLS = ("kubelet", "kube-state-metrics")
DELETED = "prometheus_tsdb_size_retentions_total"
DELETES = alert("PrometheusDeletesSamples", "ticket", SELF)


def pool(job: str) -> str:
    """Return the series of how many targets of a job there are."""
    return f'prometheus_target_scrape_pool_targets{{scrape_job="{job}"}}'


def absent(place: Mapping[str, str]) -> Firing:
    """Return the alert of a source that does not answer, or that has no target."""
    return alert("PlatformSourceDown", "ticket", place)


BETWEEN = 70
"""Minutes between failures of the storage: each is told for an hour."""

_EACH = (
    itself("PrometheusRuleFailures", [16], [17, 20], {FAILED: OVER_AND_OVER}, "page"),
    itself("PrometheusMissesEvaluations", [18, 22], [23, 32], {MISSED: SELDOM}, "ticket"),
    *(
        itself("PrometheusNotificationsFail", [16], [17, 20], {name: OVER_AND_OVER}, "page")
        for name in (UNSENT, DROPPED)
    ),
    Case(
        "Prometheus: each fails once, and no more",
        150,
        dict.fromkeys(range(11, 36), ()),
        others={
            "prometheus": dict.fromkeys(
                (FAILED, MISSED, UNSENT, DROPPED), growing((0, 40), (ONE, 1), (0, 109))
            )
        },
        step="15s",
    ),
    itself(
        "PrometheusConfigurationRefused",
        [13],
        [18],
        {LOADED: level((1, 40), (0, 40), (1, 70))},
        "ticket",
    ),
    Case(
        "Prometheus: each part of its storage fails once, one after the other",
        8 * BETWEEN,
        {
            BETWEEN * at + minute: (BROKEN,) if fires else ()
            for at in range(1, 8)
            for minute, fires in ((0, False), (5, True), (55, True), (65, False))
        },
        others={
            "prometheus": {
                name: growing((0, BETWEEN * at), (ONE, 1), (0, BETWEEN * (8 - at) - 1))
                for at, name in enumerate(STORAGE, 1)
            }
        },
        step="1m",
        every="5m",
    ),
    Case(
        "Prometheus: its samples do not fit",
        180,
        {100: (), 130: (DELETES,), 1500: (DELETES,), 1600: ()},
        others={"prometheus": {DELETED: growing((0, 12), (0.95, 2), (0, 166))}},
        step="10m",
        every="10m",
    ),
    Case(
        "kube-state-metrics is down for 18 minutes",
        STEPS,
        {24: (), 26: (absent(CLUSTER),), 29: ()},
        others={
            "cluster": {"up": level((1, 20), (0, 37), (1, 3))},
            "kubelet": {"up": level((1, STEPS))},
            "cert-manager": {"up": level((1, STEPS))},
            "prometheus": dict.fromkeys(map(pool, POOLS), level((1, STEPS))),
        },
    ),
    Case(
        "a kubelet and cert-manager are down",
        STEPS,
        {14: (), 16: (absent(KUBELET), absent(CERTIFICATES)), 29: ()},
        others={
            "kubelet": {"up": level((0, 55), (1, 5))},
            "cert-manager": {"up": level((0, 55), (1, 5))},
        },
    ),
    Case(
        "kubelets and kube-state-metrics have no target",
        STEPS,
        {24: (), 26: tuple(absent({"job": job}) for job in POOLS), 29: ()},
        others={
            "prometheus": dict.fromkeys(map(pool, POOLS), level((1, 20), (0, 37), (1, 3)))
            | {pool("cert-manager"): level((0, STEPS))},
        },
    ),
    Case(
        "cert-manager is gone",
        180,
        {
            250: (),
            290: (absent({"job": "cert-manager"}),),
            1500: (absent({"job": "cert-manager"}),),
            1790: (),
        },
        others={
            name: {"up": f"{level((1, 24))} stale _x155"} for name in ("cert-manager", "stranger")
        },
        step="10m",
        every="10m",
    ),
    Case(
        "Prometheus: nothing fails",
        STEPS,
        {9: (), 29: ()},
        others={
            "prometheus": {
                **dict.fromkeys(
                    (DROPPED, UNSENT, FAILED, MISSED, DELETED, *STORAGE), growing((0, STEPS))
                ),
                LOADED: level((1, STEPS)),
            }
        },
    ),
    Case(
        "Prometheus: everything fails of one of another job",
        STEPS,
        {29: ()},
        others={
            "stranger": {
                **dict.fromkeys(
                    (DROPPED, UNSENT, FAILED, MISSED, DELETED, *STORAGE), growing((1, STEPS))
                ),
                **dict.fromkeys(map(pool, POOLS), level((0, STEPS))),
                "up": level((0, STEPS)),
                LOADED: level((0, STEPS)),
            }
        },
    ),
)

PROMETHEUS = tuple(
    replace(case, without=("slo",), hidden="Watchdog|CredenzaSLOWithoutData") for case in _EACH
)
