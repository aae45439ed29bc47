"""Cases of the other alerts of the service: what happens to it.

They run without slo.yml, as they are many.
"""

from dataclasses import replace

from burst_cases import BURSTS
from heartbeat_cases import HEARTBEAT
from rule_cases import (
    POD,
    SECOND,
    STAGING,
    Case,
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
from service_series import (
    BUSY,
    REFUSED,
    STEPS,
    WAITING,
    WAITS,
    errors,
    invalidations,
    sick,
    waits,
)

ELEVEN = ((0, 36), (2, 5), (1, 1), (0, 18))
REASONS = ("requests", "exports")
AWAY = alert("CredenzaDatabaseUnreachable", "page")
WITHOUT_IT = alert("CredenzaReplicaWithoutDatabase", "ticket", POD)
LACK = alert("CredenzaSLOWithoutData", "ticket", {})


def database(kind: str, number: float) -> Case:
    """Return a case of so many failures of a kind in five minutes."""
    fires = kind != "refused" and number > 9
    found = (alert("CredenzaDatabaseErrors", "ticket", kind=kind),) if fires else ()
    changed = {errors(kind): growing((0, 20), (number / 10, 10), (0, 30))}
    return Case(f"{number:.0f} failures: {kind}", STEPS, {9: (), 15: found, 29: ()}, changed)


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
        "all replicas have been gone for 30 hours",
        190,
        {80: (alert("CredenzaDown", "page"),), 1860: (alert("CredenzaDown", "page"),)},
        gone(6, 184),
        step="10m",
        every="10m",
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
        {11: (), 12: (AWAY,), 14: (AWAY,), 18: (AWAY, WITHOUT_IT), 25: ()},
        {"credenza_database_up": level((1, 21), (0, 20), (1, 19))},
    ),
    Case(
        "one of two replicas cannot reach the database for seven minutes",
        STEPS,
        {14: (), 16: (alert("CredenzaReplicaWithoutDatabase", "ticket", SECOND),), 18: ()},
        others={
            "second": {
                "up": level((1, STEPS)),
                "credenza_database_up": level((1, 20), (0, 14), (1, 26)),
            }
        },
    ),
    Case(
        "a replica cannot reach the database, and the other one is down",
        STEPS,
        {12: (AWAY,)},
        {"credenza_database_up": at(10, 0, 1)},
        others={
            "second": {"up": at(10, 0, 1), "credenza_database_up": f"{level((1, 20))} stale _x39"}
        },
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
        "eleven invalidations take long, and there are no others",
        STEPS,
        {27: (alert("CredenzaInvalidationsLate", "ticket"),)},
        {
            **{invalidated(bound): growing((0, STEPS)) for bound in ("0.1", "0.25", "1.0")},
            **{invalidated(bound): growing(*ELEVEN) for bound in ("2.5", "+Inf")},
            "credenza_cache_invalidation_seconds_count": growing(*ELEVEN),
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
        {19: (), 22: (alert("CredenzaPoolWaits", "ticket", POD),), 44: ()},
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
    *(
        Case(
            f"99 of 100 statements wait {'more' if fires else 'less'} than 0.25 s",
            STEPS,
            {27: (alert("CredenzaPoolWaits", "ticket", POD),) if fires else ()},
            waits(*quick),
        )
        for quick, fires in (((97, 98.8), True), ((98, 99.1), False))
    ),
    *(
        Case(
            f"{number / 30:.2g} statements a second wait long",
            STEPS,
            {27: (alert("CredenzaPoolWaits", "ticket", POD),) if number > 3 else ()},
            waits(0, 0, number),
        )
        for number in (2.7, 3.3)
    ),
    *(database(kind, 9.8) for kind in ("away", "busy", "failed", "timeout", "refused")),
    database("away", 9),
    Case(
        "Redis is not asked",
        STEPS,
        {14: (), 16: (alert("CredenzaRedisBreakerOpen", "ticket", POD),), 29: ()},
        {"credenza_cache_breaker_open": level((0, 20), (1, 30), (0, 10))},
    ),
    Case(
        "1.5 % of the invalidations take more than a second",
        90,
        {10: (), 20: (), 24: (alert("CredenzaInvalidationsLate", "ticket"),), 44: ()},
        {
            invalidated(bound): growing((30, 20), (29.55, 40), (30, 30))
            for bound in ("0.1", "0.25", "1.0")
        },
    ),
    *(
        Case(
            f"99 of 100 invalidations take {'more' if fires else 'less'} than a second",
            STEPS,
            {28: (alert("CredenzaInvalidationsLate", "ticket"),) if fires else ()},
            invalidations(*quick),
        )
        for quick, fires in (((97, 98.95), True), ((98, 99.05), False))
    ),
    Case(
        "they take half a second",
        STEPS,
        {28: ()},
        {invalidated(bound): growing((30, 20), (29.1, 40)) for bound in ("0.1", "0.25")},
    ),
    Case(
        "nine invalidations take long, and there are no others",
        STEPS,
        {28: ()},
        {
            **{invalidated(bound): growing((0, STEPS)) for bound in ("0.1", "0.25", "1.0")},
            **{invalidated(bound): growing((0, 36), (3, 3), (0, 21)) for bound in ("2.5", "+Inf")},
            "credenza_cache_invalidation_seconds_count": growing((0, 36), (3, 3), (0, 21)),
        },
    ),
    Case(
        "requests are refused",
        STEPS,
        {21: (), 23: (alert("CredenzaRefusesRequests", "ticket"),), 29: ()},
        {REFUSED.format(reason): growing((0, 20), (0.41, 30), (0, 10)) for reason in REASONS},
    ),
    Case(
        "a few requests are refused",
        STEPS,
        {29: ()},
        {REFUSED.format("requests"): growing((0, 20), (0.75, 40))},
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
        150,
        {9: (), 16: (alert("CredenzaRestarts", "ticket", POD),), 72: ()},
        {"process_start_time_seconds": level((1, 20), (600, 4), (720, 4), (840, 122))},
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
        {19: (), 21: (alert("CredenzaMemoryHigh", "ticket", POD),), 29: ()},
        {"process_resident_memory_bytes": level((1e8, 20), (245e6, 30), (1e8, 10))},
    ),
    Case("there is memory left", STEPS, {25: ()}, {"process_resident_memory_bytes": at(10, 240e6)}),
    Case(
        "a replica may have twice as much as one of another environment, and holds as much",
        STEPS,
        {25: (alert("CredenzaMemoryHigh", "ticket", STAGING),)},
        {
            "process_resident_memory_bytes": at(10, 245e6),
            "credenza_memory_limit_bytes": level((2**29, STEPS)),
        },
        others={"staging": {**healthy(STEPS), "process_resident_memory_bytes": at(10, 245e6)}},
    ),
    Case(
        "two versions run side by side",
        160,
        {60: (), 72: (alert("CredenzaSeveralVersions", "ticket"),), 78: ()},
        others={
            "second": {'credenza_build_info{version="0.2.0"}': f"_x20 {level((1, 130))} stale"},
            "staging": {**healthy(160), 'credenza_build_info{version="0.1.0"}': level((1, 160))},
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
        "everything is wrong with a target of another job",
        150,
        {74: ()},
        others={"stranger": sick(150)},
    ),
    Case(
        "no failure of any kind, and no 5xx",
        STEPS,
        {29: ()},
        {asked("GET", "4xx"): growing((1, STEPS)), asked("PUT", "4xx"): growing((1, STEPS))},
    ),
)

SERVICE = tuple(
    replace(case, without=("slo",), hidden="Watchdog|CredenzaSLOWithoutData")
    for case in (*_EACH, *BURSTS, *HEARTBEAT)
)

WITHOUT = (
    Case(
        "the rules of the SLOs are not there, and the service goes too",
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
            25: (alert("CredenzaDown", "page"),),
        },
        gone(40, 20),
        without=("slo",),
    ),
    Case(
        "no rules of SLOs, and no target",
        STEPS,
        {19: (alert("CredenzaDown", "page", {"job": "credenza"}),)},
        nothing(STEPS),
        without=("slo",),
    ),
    Case("targets.yml is not there", STEPS, {14: (), 16: (LACK,)}, without=("targets",)),
)
"""They run without a file of the rules, and look at what says so."""
