"""Cases of the SLO alerts: what burns the error budgets, and what must wake nobody."""

from rule_cases import (
    PLACE,
    Case,
    alert,
    growing,
    healthy,
    invalidated,
    level,
    requests,
    taken,
    within,
)

STAGES = PLACE | {"namespace": "credenza-staging"}
EXPORT = "/v1/data/{collection}/_export"

READS = alert("CredenzaAvailabilityBurnsFast", "page", slo="read-availability")
READS_SLOWLY = alert("CredenzaAvailabilityBurnsSlowly", "ticket", slo="read-availability")
READS_SPENT = alert("CredenzaErrorBudgetSpent", "ticket", slo="read-availability")
WRITES = alert("CredenzaAvailabilityBurnsFast", "page", slo="write-availability")
WRITES_SLOWLY = alert("CredenzaAvailabilityBurnsSlowly", "ticket", slo="write-availability")
FEW = alert("CredenzaFewRequestsFail", "page", slo="read-availability")
EARLY = (READS, READS_SLOWLY)


def slow(slo: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Return both alerts of latency."""
    return (
        alert("CredenzaLatencyBurnsFast", "page", slo=slo),
        alert("CredenzaLatencyBurnsSlowly", "ticket", slo=slo),
    )


def found_late(began: int, failures: int, steps: int) -> dict[str, str]:
    """Return a process that began so many seconds in, failed, and is found after ten minutes."""
    return {
        "up": f"_x20 {level((1, steps))}",
        "process_start_time_seconds": f"_x20 {level((began, steps))}",
        requests("GET", "5xx"): f"_x20 {level((failures, steps))}",
    }


def failing(*phases: tuple[float, int]) -> dict[str, str]:
    """Return reads that are answered 5xx beside those of a healthy service."""
    return {requests("GET", "5xx"): growing(*phases)}


def idle(steps: int) -> dict[str, str | None]:
    """Return a service that was never asked anything by users."""
    ever = ("http_", "credenza_cache_invalidation")
    asked = {name: None for name in healthy(1) if name.startswith(ever)}
    return {**asked, requests("GET", "2xx", "/health/ready"): growing((1, steps))}


def share(failed: float, late: float) -> dict[str, str]:
    """Return a service of which so large a share is bad, of everything."""
    buckets = (within("GET", "0.1"), within("PUT", "0.25"), invalidated("0.25"))
    return {
        **{
            requests(method, "5xx"): growing((0, 2), (3000 * failed, 38))
            for method in ("GET", "PUT")
        },
        **{bucket: growing((3000 * (1 - late), 40)) for bucket in buckets},
    }


NOTHING_SPENT = {
    **{
        f"count(credenza:slo_errors:ratio_rate{window} == 0)": 5.0
        for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
    },
    "count(credenza:slo_requests:rate5m == 0)": 5.0,
    "count(credenza:slo_failures:rate5m == 0)": 5.0,
    'count(credenza:slo_failures:rate5m{job="credenza", namespace="credenza-prod"})': 5.0,
    "count(credenza:slo_budget_left:ratio30d == 1)": 5.0,
}

SHORT = (
    Case("healthy", 70, {10: (), 34: ()}),
    Case("no traffic", 50, {4: (), 24: ()}, rate=0, values=NOTHING_SPENT),
    Case("nobody has asked yet", 50, {24: ()}, idle(50), values=NOTHING_SPENT),
    Case(
        "a little more than the budgets allow",
        40,
        {
            13: (
                READS_SLOWLY,
                WRITES_SLOWLY,
                *(slow(f"{kind}-latency")[1] for kind in ("read", "write")),
                alert("CredenzaFreshnessBurnsSlowly", "ticket", slo="freshness"),
            )
        },
        share(0.0012, 0.012),
        rate=3000,
    ),
    Case("a little less than they allow", 40, {19: ()}, share(0.0009, 0.009), rate=3000),
    Case(
        "all reads fail for 10 minutes, and nothing had failed before",
        180,
        {
            29: (),
            32: EARLY,
            39: EARLY,
            60: (*EARLY, READS_SPENT),
            76: (READS_SLOWLY, READS_SPENT),
        },
        {
            requests("GET", "2xx"): growing((30, 60), (0, 20), (30, 100)),
            requests("GET", "5xx"): f"_x60 {growing((30, 20), (0, 100))}",
        },
    ),
    Case(
        "all writes fail",
        40,
        {12: (WRITES, WRITES_SLOWLY)},
        {
            requests("PUT", "2xx"): growing((30, 20), (0, 20)),
            requests("PATCH", "5xx"): growing((0, 20), (30, 20)),
        },
    ),
    Case(
        "clients' faults are no failures", 40, {15: ()}, {requests("GET", "4xx"): growing((9, 40))}
    ),
    Case(
        "probes and scrapes are no users",
        40,
        {15: ()},
        {
            requests("GET", "5xx", "/health/ready"): growing((9, 40)),
            requests("GET", "5xx", "/metrics"): growing((9, 40)),
        },
    ),
    Case(
        "one read of 20 fails", 80, {24: (), 38: ()}, failing((0, 40), (1, 1), (0, 39)), rate=1 / 6
    ),
    Case(
        "four reads of 240 an hour are no ratio",
        140,
        {66: ()},
        failing((0, 120), (1, 4), (0, 16)),
        rate=2,
    ),
    Case(
        "eight reads of 240 an hour neither",
        140,
        {66: ()},
        failing((0, 120), (2, 4), (0, 16)),
        rate=2,
    ),
    Case(
        "sixteen reads of 240 are one",
        140,
        {66: EARLY},
        failing((0, 120), (4, 4), (0, 16)),
        rate=2,
    ),
    Case(
        "six reads of six fail where there is little traffic",
        200,
        {10: (), 25: (FEW,), 95: ()},
        {requests("GET", "2xx"): None, **failing((0, 30), (1, 6), (0, 164))},
        rate=0,
    ),
    Case(
        "six reads of six are slow where there is little traffic",
        60,
        {25: ()},
        {
            taken("GET"): growing((0, 30), (1, 6), (0, 24)),
            within("GET", "+Inf"): growing((0, 30), (1, 6), (0, 24)),
        },
        rate=0,
    ),
    Case(
        "the first failures come at once, one of each route",
        60,
        {9: (), 16: (FEW,)},
        {requests("GET", "5xx", f"/v1/{n}"): f"_x20 {level((1, 40))}" for n in range(6)},
        rate=0,
        values={
            f"round(sum(credenza:slo_{counted}))": 6.0
            for counted in (
                *(f"failures:increase{window}" for window in ("1h", "6h", "1d", "3d", "30d")),
                'requests:increase1h{slo="read-availability"}',
            )
        },
    ),
    Case(
        "failures of long ago come and go with their series, and probes fail for the first time",
        60,
        {12: (), 25: ()},
        {
            requests("GET", "5xx", "/health/ready"): f"_x20 {level((5000, 40))}",
            requests("GET", "5xx", "/v1/old"): f"{level((5000, 20))} stale _x39",
        },
        others={
            target: {
                "up": f"_x20 {level((1, 40))}",
                'credenza_build_info{version="0.1.0"}': f"_x20 {level((1, 40))}",
                "process_start_time_seconds": level((-86400, 60)),
                requests("GET", "5xx"): f"_x20 {level((5000, 40))}",
            }
            for target in ("second", "staging-twin")
        },
        rate=0,
    ),
    Case(
        "a process has just begun, and fails at once",
        60,
        {9: (), 13: (*EARLY, FEW)},
        others={
            "second": found_late(590, 41, 40),
        },
        rate=0,
    ),
    Case(
        "a process was down for three minutes, and failed long ago",
        60,
        dict.fromkeys((14, 16, 18, 20), ()),
        others={
            "second": {
                "up": level((1, 20), (0, 6), (1, 34)),
                "process_start_time_seconds": level((-86400, 60)),
                requests("GET", "5xx"): f"{level((41, 20))} stale _x5 {level((41, 34))}",
            }
        },
        rate=0,
    ),
    Case(
        "staging fails, and production does not",
        40,
        {
            15: (
                alert("CredenzaAvailabilityBurnsFast", "page", STAGES, slo="read-availability"),
                alert("CredenzaAvailabilityBurnsSlowly", "ticket", STAGES, slo="read-availability"),
            )
        },
        others={"staging": {**healthy(40), **failing((0, 20), (9, 20))}},
    ),
    Case(
        "reads take longer than 0.1 s",
        40,
        {18: slow("read-latency")},
        {
            within("GET", "0.05"): growing((30, 20), (9, 20)),
            within("GET", "0.1"): growing((30, 20), (9, 20)),
        },
    ),
    Case(
        "writes take longer than 0.25 s",
        40,
        {18: slow("write-latency")},
        {within("PUT", bound): growing((30, 20), (9, 20)) for bound in ("0.1", "0.25")},
    ),
    Case(
        "writes may take longer than 0.1 s",
        40,
        {15: ()},
        {within("PUT", "0.1"): growing((30, 20), (0, 20))},
    ),
    Case(
        "reads may take longer than 0.05 s",
        40,
        {15: ()},
        {within("GET", "0.05"): growing((30, 20), (0, 20))},
    ),
    Case(
        "invalidations may take longer than 0.1 s",
        40,
        {15: ()},
        {invalidated("0.1"): growing((30, 20), (0, 20))},
    ),
    Case(
        "invalidations take longer than 0.25 s",
        40,
        {
            15: (
                alert("CredenzaFreshnessBurnsFast", "page", slo="freshness"),
                alert("CredenzaFreshnessBurnsSlowly", "ticket", slo="freshness"),
            )
        },
        {invalidated(bound): growing((30, 20), (9, 20)) for bound in ("0.1", "0.25")},
    ),
)
"""What minutes show."""


def hours(
    name: str,
    expected: dict[int, tuple[tuple[tuple[str, str], ...], ...]],
    *phases: tuple[float, int],
) -> Case:
    """Return a case of 3,000 reads a minute, with failures for so many minutes."""
    steps = sum(length for _, length in phases)
    return Case(name, steps, expected, failing(*phases), rate=3000, step="1m", every="2m")


def days(
    name: str,
    expected: dict[int, tuple[tuple[tuple[str, str], ...], ...]],
    *phases: tuple[float, float, int],
) -> Case:
    """Return a case of reads and failures each 2 minutes, for so many hours."""
    reads = growing(*((rate, 30 * length) for rate, _, length in phases))
    bad = growing(*((rate * share, 30 * length) for rate, share, length in phases))
    steps = sum(30 * length for *_, length in phases)
    changed = {requests("GET", "2xx"): reads, requests("GET", "5xx"): bad}
    return Case(
        name,
        steps,
        {60 * hour: firing for hour, firing in expected.items()},
        changed,
        step="2m",
        every="1h",
    )


LONG = (
    hours(
        "a fifth of the reads fails for 5 minutes",
        {398: (), 408: EARLY, 412: (READS_SLOWLY,)},
        *((0, 400), (600, 5), (0, 15)),
    ),
    hours(
        "2 % fail for half an hour: that is no page",
        {428: (READS_SLOWLY,)},
        *((0, 400), (60, 30)),
    ),
    days(
        "1 % fails for three hours: the budget is spent, until enough succeeds",
        {28: (READS_SPENT,), 33: ()},
        *((3e4, 0.01, 3), (3e4, 0, 31)),
    ),
    days("0.08 % fail: the budget is for that", {30: ()}, (3e4, 0.0008, 31)),
    days(
        "0.5 % fail for two hours",
        {49: (), 50: ()},
        *((3e4, 0, 48), (3e4, 0.005, 3)),
    ),
)
"""What takes hours and days."""
