"""Cases of the other alerts: what happens to the service, and to Prometheus.

They run without slo.yml, as they are many.
"""

from collections.abc import Sequence
from dataclasses import replace

from heartbeat_cases import HEARTBEAT, STEPS
from rule_cases import (
    POD,
    SECOND,
    SELF,
    Case,
    Firing,
    Series,
    alert,
    at,
    gone,
    growing,
    healthy,
    invalidated,
    level,
    nothing,
)
from rule_cases import requests as asked

BUSY = 'credenza_database_connections{state="busy"}'
WAITING = 'credenza_groups_waiting{kind="create"}'
WAITS = "credenza_database_wait_seconds"
REFUSED = 'credenza_requests_refused_total{{reason="{}"}}'
REASONS = ("requests", "exports")
GROUP = '{rule_group="/etc/prometheus-rules/slo.yml;credenza-sli"}'
RECEIVER = '{alertmanager="http://alertmanager:9093/api/v2/alerts"}'
TOTALS = (
    "prometheus_notifications_dropped_total",
    f"prometheus_notifications_errors_total{RECEIVER}",
    f"prometheus_rule_evaluation_failures_total{GROUP}",
    f"prometheus_rule_group_iterations_missed_total{GROUP}",
)
STORAGE = (
    "wal_corruptions",
    "wal_writes_failed",
    "wal_truncations_failed",
    "checkpoint_creations_failed",
    "compactions_failed",
    "head_truncations_failed",
    "reloads_failures",
)


LACK = alert("CredenzaSLOWithoutData", "ticket", {})


def errors(kind: str) -> str:
    """Return a series of failures of the database."""
    return f'credenza_database_errors_total{{kind="{kind}"}}'


def database(kind: str, number: float) -> Case:
    """Return a case of so many failures of a kind in five minutes."""
    fires = kind != "refused" and number > 10
    found = (alert("CredenzaDatabaseErrors", "ticket", kind=kind),) if fires else ()
    changed = {errors(kind): growing((0, 20), (number / 10, 10), (0, 30))}
    return Case(f"{number} failures: {kind}", STEPS, {9: (), 15: found, 29: ()}, changed)


def itself(name: str, expected: Sequence[int], changed: Series, severity: str = "ticket") -> Case:
    """Return a case of Prometheus itself: at which minutes it fires, and no longer at the end."""
    found: dict[int, tuple[Firing, ...]] = {9: (), 13: (), 29: ()}
    found |= {minute: (alert(name, severity, SELF),) for minute in expected}
    title = f"Prometheus: {', '.join(changed)}"
    return Case(title, STEPS, found, others={"prometheus": changed})


TEN_MINUTES = growing((0, 20), (1, 20), (0, 20))

_EACH = (
    Case(
        "all replicas are gone, for a quarter of an hour",
        STEPS,
        {9: (), 11: (), 13: (alert("CredenzaDown", "page"),), 29: ()},
        {
            **gone(20, 30),
            "up": f"{level((1, 20))} stale _x29 {level((1, 10))}",
            'credenza_build_info{version="0.1.0"}': f"{level((1, 20))} stale _x29 {level((1, 10))}",
        },
    ),
    Case(
        "all replicas have been gone for three hours",
        200,
        {160: (alert("CredenzaDown", "page"),)},
        gone(10, 190),
        step="1m",
        every="2m",
    ),
    Case(
        "there was never one",
        20,
        {1: (), 8: (alert("CredenzaDown", "page", {"job": "credenza"}),)},
        nothing(20),
    ),
    Case(
        "the only target is down",
        STEPS,
        {
            9: (),
            13: (alert("CredenzaDown", "page"),),
            20: (alert("CredenzaDown", "page"), alert("TargetDown", "ticket", POD)),
        },
        {**gone(20, 39), "up": at(10, 0, 1)},
    ),
    Case(
        "one of two targets is down for seven minutes",
        STEPS,
        {14: (), 16: (alert("TargetDown", "ticket", SECOND),), 18: ()},
        others={"second": {"up": level((1, 20), (0, 14), (1, 26))}},
    ),
    Case(
        "the database cannot be reached",
        STEPS,
        {10: (), 12: (alert("CredenzaDatabaseUnreachable", "page", POD),), 25: ()},
        {"credenza_database_up": level((1, 20), (0, 20), (1, 20))},
    ),
    Case(
        "the database is away for half a minute",
        STEPS,
        {10: (), 12: ()},
        {"credenza_database_up": level((1, 20), (0, 1), (1, 39))},
    ),
    Case(
        "all connections are busy",
        STEPS,
        {14: (), 16: (alert("CredenzaPoolExhausted", "ticket", POD),), 29: ()},
        {BUSY: level((3, 20), (10, 30), (3, 10))},
    ),
    Case(
        "sixteen invalidations take long, and there are no others",
        STEPS,
        {27: (alert("CredenzaInvalidationsLate", "ticket"),)},
        {
            **{invalidated(bound): growing((0, STEPS)) for bound in ("0.1", "0.25", "1.0")},
            **{invalidated(bound): growing((0, 36), (2, 8), (0, 16)) for bound in ("2.5", "+Inf")},
            "credenza_cache_invalidation_seconds_count": growing((0, 36), (2, 8), (0, 16)),
        },
    ),
    Case(
        "all connections are idle",
        STEPS,
        {20: ()},
        {
            BUSY: level((0, STEPS)),
            'credenza_database_connections{state="idle"}': level((10, STEPS)),
        },
    ),
    Case("nine of ten connections are busy", STEPS, {20: ()}, {BUSY: at(10, 9, 3)}),
    Case(
        "statements wait for connections",
        90,
        {15: (), 27: (alert("CredenzaPoolWaits", "ticket", POD),), 44: ()},
        {
            **{
                f'{WAITS}_bucket{{le="{n}"}}': growing((5, 20), (2, 40), (5, 30))
                for n in ("0.1", "0.25")
            },
            **{f'{WAITS}_bucket{{le="{n}"}}': growing((5, 90)) for n in ("0.5", "+Inf")},
            f"{WAITS}_count": growing((5, 90)),
        },
    ),
    Case(
        "statements wait a little",
        STEPS,
        {27: ()},
        {f'{WAITS}_bucket{{le="{n}"}}': growing((30, 20), (15, 40)) for n in ("0.1",)},
    ),
    Case(
        "a statement now and then waits",
        STEPS,
        {27: ()},
        {
            **{f'{WAITS}_bucket{{le="{n}"}}': growing((0, STEPS)) for n in ("0.1", "0.25")},
            **{f'{WAITS}_bucket{{le="{n}"}}': growing((2, STEPS)) for n in ("0.5", "+Inf")},
            f"{WAITS}_count": growing((2, STEPS)),
        },
    ),
    *(database(kind, 12) for kind in ("away", "busy", "failed", "timeout", "refused")),
    database("away", 6),
    Case(
        "Redis is not asked",
        STEPS,
        {14: (), 16: (alert("CredenzaRedisBreakerOpen", "ticket", POD),), 29: ()},
        {"credenza_cache_breaker_open": level((0, 20), (1, 30), (0, 10))},
    ),
    Case(
        "1.5 % of the invalidations take more than a second",
        STEPS,
        {10: (), 20: (), 28: (alert("CredenzaInvalidationsLate", "ticket"),)},
        {invalidated(bound): growing((30, 20), (29.55, 40)) for bound in ("0.1", "0.25", "1.0")},
    ),
    Case(
        "they take half a second",
        STEPS,
        {28: ()},
        {invalidated(bound): growing((30, 20), (29.1, 40)) for bound in ("0.1", "0.25")},
    ),
    Case(
        "eight invalidations take long, and there are no others",
        STEPS,
        {28: ()},
        {
            **{invalidated(bound): growing((0, STEPS)) for bound in ("0.1", "0.25", "1.0")},
            **{invalidated(bound): growing((0, 36), (1, 8), (0, 16)) for bound in ("2.5", "+Inf")},
            "credenza_cache_invalidation_seconds_count": growing((0, 36), (1, 8), (0, 16)),
        },
    ),
    Case(
        "requests are refused",
        STEPS,
        {10: (), 16: (), 18: (alert("CredenzaRefusesRequests", "ticket"),), 29: ()},
        {REFUSED.format(reason): growing((0, 20), (1, 20), (0, 20)) for reason in REASONS},
    ),
    Case(
        "a few requests are refused",
        STEPS,
        {29: ()},
        {REFUSED.format("requests"): growing((0, 20), (0.5, 40))},
    ),
    Case(
        "requests wait for groups",
        STEPS,
        {14: (), 16: (alert("CredenzaGroupsWait", "ticket", kind="create"),), 29: ()},
        {WAITING: level((0, 20), (101, 30), (9, 10))},
    ),
    Case("some requests wait for groups", STEPS, {16: ()}, {WAITING: at(10, 100)}),
    Case(
        "a process starts anew three times",
        STEPS,
        {9: (), 16: (alert("CredenzaRestarts", "ticket", POD),)},
        {"process_start_time_seconds": level((1, 20), (600, 4), (720, 4), (840, 32))},
    ),
    Case(
        "a process starts anew twice",
        STEPS,
        {16: ()},
        {"process_start_time_seconds": level((1, 20), (600, 4), (720, 36))},
    ),
    Case(
        "memory comes near its limit",
        STEPS,
        {19: (), 21: (alert("CredenzaMemoryHigh", "ticket", POD),)},
        {"process_resident_memory_bytes": at(10, 245e6, 1e8)},
    ),
    Case("there is memory left", STEPS, {25: ()}, {"process_resident_memory_bytes": at(10, 240e6)}),
    Case(
        "two versions run side by side",
        150,
        {60: (), 72: (alert("CredenzaSeveralVersions", "ticket"),)},
        others={
            "second": {'credenza_build_info{version="0.2.0"}': f"_x20 {level((1, 130))}"},
            "staging": {**healthy(150), 'credenza_build_info{version="0.1.0"}': level((1, 150))},
        },
    ),
    Case(
        "two replicas of one version, and another one in staging",
        150,
        {72: ()},
        others={
            "second": {'credenza_build_info{version="0.1.0"}': level((1, 150))},
            "staging": {'credenza_build_info{version="0.2.0"}': level((1, 150))},
        },
    ),
    Case(
        "no failure of any kind, and no 5xx",
        STEPS,
        {29: ()},
        {asked("GET", "4xx"): growing((1, STEPS)), asked("PUT", "4xx"): growing((1, STEPS))},
    ),
    itself(
        "PrometheusRuleFailures",
        [18],
        {f"prometheus_rule_evaluation_failures_total{GROUP}": TEN_MINUTES},
        "page",
    ),
    itself(
        "PrometheusMissesEvaluations",
        [25, 29],
        {f"prometheus_rule_group_iterations_missed_total{GROUP}": TEN_MINUTES},
    ),
    *(
        itself("PrometheusNotificationsFail", [18], {name: TEN_MINUTES}, "page")
        for name in (f"prometheus_notifications_errors_total{RECEIVER}", TOTALS[0])
    ),
    *(
        itself(
            "PrometheusStorageFails",
            [13, 29],
            {f"prometheus_tsdb_{name}_total": growing((0, 20), (1, 1), (0, 39))},
        )
        for name in STORAGE
    ),
    itself(
        "PrometheusConfigurationRefused",
        [18],
        {"prometheus_config_last_reload_successful": level((1, 20), (0, 20), (1, 20))},
    ),
    itself(
        "",
        [],
        {
            **{name: growing((0, STEPS)) for name in TOTALS},
            **{f"prometheus_tsdb_{name}_total": growing((0, STEPS)) for name in STORAGE},
            "prometheus_config_last_reload_successful": level((1, STEPS)),
        },
    ),
)

SERVICE = tuple(
    replace(case, without=("slo",), hidden="Watchdog|CredenzaSLOWithoutData")
    for case in (*_EACH, *HEARTBEAT)
)

WITHOUT = (
    Case(
        "the rules of the SLOs are not there",
        STEPS,
        {
            14: (),
            16: tuple(
                alert("CredenzaSLOWithoutData", "ticket", {}, slo=slo)
                for slo in (
                    *("read-availability", "write-availability", "read-latency"),
                    *("write-latency", "freshness"),
                )
            ),
        },
        without=("slo",),
    ),
    Case(
        "no rules of SLOs, and no target",
        STEPS,
        {19: (alert("CredenzaDown", "page", {"job": "credenza"}),)},
        nothing(STEPS),
        without=("slo",),
    ),
    *(
        Case(f"{name}.yml is not there", STEPS, {14: (), 16: (LACK,)}, without=(name,))
        for name in ("targets", "limits")
    ),
)
"""They run without a file of the rules, and look at what says so."""
