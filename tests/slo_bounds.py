"""Cases on both sides of each bound of the SLO alerts, of all five objectives at once.

A burn rate grows slowly past a factor over the long window, and later falls below it over the short
one, while the other window is far above.
"""

from rule_cases import (
    POD,
    Case,
    Firing,
    alert,
    growing,
    invalidated,
    level,
    requests,
    taken,
    within,
)
from service_series import sick
from slo_cases import EXPORT, READS, READS_SLOWLY, found_late, slow

AVAILABILITY = ("read-availability", "write-availability")
LATENCY = ("read-latency", "write-latency")


def burning(speed: str) -> tuple[Firing, ...]:
    """Return the alerts of all objectives that burn `Fast` or `Slowly`."""
    severity = "page" if speed == "Fast" else "ticket"
    return (
        *(alert(f"CredenzaAvailabilityBurns{speed}", severity, slo=slo) for slo in AVAILABILITY),
        *(alert(f"CredenzaLatencyBurns{speed}", severity, slo=slo) for slo in LATENCY),
        alert(f"CredenzaFreshnessBurns{speed}", severity, slo="freshness"),
    )


FAST, SLOWLY = burning("Fast"), burning("Slowly")
SPENT = tuple(
    alert("CredenzaErrorBudgetSpent", "ticket", slo=slo)
    for slo in (*AVAILABILITY, *LATENCY, "freshness")
)
FEW = tuple(alert("CredenzaFewRequestsFail", "page", slo=slo) for slo in AVAILABILITY)
TWICE = "|CredenzaErrorBudgetSpent|Credenza.*Burns"
"""What is not looked at, but for the speed."""


def burnt(*phases: tuple[float, float, int]) -> dict[str, str]:
    """Return a service in phases: how much it is asked a step, its burn rate, and for how many.

    A burn rate of 1 is 0.1 % of the requests answered 5xx, and 1 % late.
    """
    total = growing(*((rate, steps) for rate, _, steps in phases))
    good = growing(*((rate * (1 - burn / 1000), steps) for rate, burn, steps in phases))
    bad = growing(*((rate * burn / 1000, steps) for rate, burn, steps in phases))
    early = growing(*((rate * (1 - burn / 100), steps) for rate, burn, steps in phases))
    within_bound = (within("GET", "0.1"), within("PUT", "0.25"), invalidated("0.25"))
    of_all = (within("GET", "+Inf"), within("PUT", "+Inf"), invalidated("+Inf"))
    counts = (taken("GET"), taken("PUT"), "credenza_cache_invalidation_seconds_count")
    return {
        **dict.fromkeys((requests("GET", "2xx"), requests("PUT", "2xx")), good),
        **dict.fromkeys((requests("GET", "5xx"), requests("PUT", "5xx")), bad),
        **dict.fromkeys(within_bound, early),
        **dict.fromkeys((*of_all, *counts), total),
    }


def ramp(
    name: str,
    expected: dict[int, tuple[Firing, ...]],
    *phases: tuple[float, float, int],
    step: int,
    every: int,
    speed: str,
) -> Case:
    """Return a case of phases whose lengths, and `expected`, are minutes."""
    in_steps = tuple((rate, burn, minutes // step) for rate, burn, minutes in phases)
    return Case(
        name,
        sum(steps for *_, steps in in_steps),
        expected,
        burnt(*in_steps),
        step=f"{step}m",
        every=f"{every}m",
        hidden=f"Watchdog|CredenzaInvalidationsLate{TWICE}{speed}",
    )


HOUR = 60
RAMPS = (
    ramp(
        "14.4 over an hour, and over 5 minutes",
        {268: (), 274: FAST, 286: FAST, 294: ()},
        *((3000, 0, 240), (3000, 30, 40), (3000, 16, 7), (3000, 13, 7)),
        step=1,
        every=2,
        speed="Slowly",
    ),
    ramp(
        "6 over six hours, and over half an hour",
        {370: (), 400: FAST, 505: FAST, 540: ()},
        *((3000, 0, 200), (3000, 12, 270), (3000, 7, 35), (3000, 5, 36)),
        step=1,
        every=5,
        speed="Slowly",
    ),
    ramp(
        "3 over a day, and over two hours: it is a day of little traffic",
        {51 * HOUR: (), 53 * HOUR: SLOWLY, 59 * HOUR: SLOWLY, 60 * HOUR + 30: ()},
        *((3e5, 0, 24 * HOUR), (3e3, 2.5, 24 * HOUR), (3e3, 5.8, 8 * HOUR)),
        *((3e3, 3.4, 3 * HOUR), (3e3, 2.7, 2 * HOUR)),
        step=2,
        every=30,
        speed="Fast",
    ),
    ramp(
        "1 over three days, and over six hours: two quiet ones do not end it",
        {
            73 * HOUR: (),
            80 * HOUR: SLOWLY,
            86 * HOUR: SLOWLY,
            93 * HOUR: SLOWLY,
            100 * HOUR: (),
        },
        *((3e4, 0, 40 * HOUR), (3e4, 2, 44 * HOUR), (3e4, 0, 2 * HOUR)),
        *((3e4, 1.1, 7 * HOUR), (3e4, 0.9, 7 * HOUR)),
        step=2,
        every=60,
        speed="Fast",
    ),
)

STEPS = 100
"""Fifty minutes."""


def only_bad(number: float) -> dict[str, str | None]:
    """Return a service that is asked so many times, in one step, and everything is bad."""
    counts = (taken("GET"), taken("PUT"), "credenza_cache_invalidation_seconds_count")
    failures = (requests("GET", "5xx"), requests("PUT", "5xx"))
    return {
        **dict.fromkeys((requests("GET", "2xx"), requests("PUT", "2xx"))),
        **dict.fromkeys((*failures, *counts), growing((0, 20), (number, 1), (0, STEPS - 21))),
    }


def reads(*phases: tuple[float, float, int]) -> dict[str, str]:
    """Return phases of reads that succeed, those that fail, and for how many steps."""
    return {
        requests("GET", "2xx"): growing(*((good, steps) for good, _, steps in phases)),
        requests("GET", "5xx"): growing(*((bad, steps) for _, bad, steps in phases)),
    }


READS_FEW, READS_SPENT = FEW[0], SPENT[0]
BURNS = f"Watchdog{TWICE}"
COUNTS = (
    Case("nine of nine are bad: that is no ratio", STEPS, {13: FEW, 36: FEW}, only_bad(9), rate=0),
    Case(
        "eleven of eleven are bad",
        STEPS,
        {
            16: (*FEW, *FAST, *SLOWLY),
            29: (*FEW, *FAST, *SLOWLY),
            31: (*FEW, *FAST, *SLOWLY, *SPENT),
            47: (*FEW, *SLOWLY, *SPENT),
        },
        only_bad(11),
        rate=0,
    ),
    Case(
        "the budget is spent, and requests that succeed make it whole again",
        130,
        {19: (), 23: (READS_SPENT,), 49: (READS_SPENT,), 64: ()},
        reads((998.9, 1.1, 100), (1000, 0, 30)),
        hidden="Watchdog|Credenza.*Burns.*",
    ),
    Case(
        "four of 180 requests fail, then five, then there are 230",
        170,
        {60: (), 70: (READS_FEW,), 84: ()},
        reads((1.5, 0, 100), (1.5, 4, 1), (1.5, 0, 24), (1.5, 1, 1), (1.5, 0, 16), (3, 0, 28)),
        rate=0,
        hidden=BURNS,
    ),
)


def apart(name: str, *phases: tuple[float, float, int], step: int, every: int, speed: str) -> Case:
    """Return a case of reads that fail in phases, of minutes; alerts of a speed fire at its end."""
    in_steps = tuple((good, bad, minutes // step) for good, bad, minutes in phases)
    steps = sum(steps for *_, steps in in_steps)
    fires, other = (READS, "Slowly") if speed == "Fast" else (READS_SLOWLY, "Fast")
    return Case(
        name,
        steps + 1,
        {steps * step: (fires,)},
        reads(*in_steps, (0, 0, 1)),
        rate=0,
        step=f"{step}m",
        every=f"{every}m",
        hidden=f"Watchdog|CredenzaFewRequestsFail{TWICE}{other}",
    )


APART = (
    apart(
        "twelve fail within an hour, six of them within five minutes; many were asked before",
        *((6000, 0, 10), (0, 0, 65), (0, 6, 10), (0, 0, 10), (0, 6, 10)),
        step=1,
        every=5,
        speed="Fast",
    ),
    apart(
        "twelve fail within six hours, six of them within an hour",
        *((0, 0, 10), (0, 6, 10), (0, 0, 70), (0, 6, 10)),
        step=1,
        every=5,
        speed="Fast",
    ),
    apart(
        "twelve fail within a day, six of them within two hours; many were asked before",
        *((3e5, 0, 2 * HOUR), (0, 0, 25 * HOUR)),
        *((0, 12, HOUR), (0, 0, 3 * HOUR), (0, 12, HOUR)),
        step=2,
        every=30,
        speed="Slowly",
    ),
    apart(
        "twelve fail within three days, six of them within six hours",
        *((0, 0, HOUR), (0, 12, HOUR), (0, 0, 7 * HOUR), (0, 12, HOUR), (0, 0, 3 * HOUR)),
        step=2,
        every=30,
        speed="Slowly",
    ),
)
"""Of each window that failures are counted in: they are too few in the next shorter one."""


def begun(before: int) -> Case:
    """Return a case of a process that began so many seconds before it was found, with failures."""
    return Case(
        f"a process that failed at once is found after {before} s",
        40,
        {9: (), 12: (READS, READS_SLOWLY, READS_FEW) if before < 300 else ()},
        others={
            "second": found_late(600 - before, 400, 20),
        },
        rate=0,
    )


def transfers(number: float, early: float) -> dict[str, str]:
    """Return exports and imports, so many a step, and how many of them are quick."""
    found: dict[str, str] = {}
    for method, handler in (("GET", EXPORT), ("POST", EXPORT.replace("export", "import"))):
        bound = "0.1" if method == "GET" else "0.25"
        found |= {
            taken(method, handler): growing((number, 40)),
            within(method, bound, handler): growing((early, 40)),
            within(method, "+Inf", handler): growing((number, 40)),
        }
    return found


OTHER = (
    Case(
        "everything burns 20.57 times as fast as it may, from the beginning",
        40,
        {13: (*FAST, *SLOWLY)},
        burnt((3000, 20.57, 40)),
        hidden="Watchdog|CredenzaInvalidationsLate",
    ),
    begun(280),
    begun(330),
    Case(
        "an objective has no rules",
        40,
        {14: (), 16: (alert("CredenzaSLOWithoutData", "ticket", POD, slo="imports"),)},
        {'credenza:slo_objective:ratio{slo="imports"}': level((0.9, 40))},
    ),
    Case("slow exports and imports are none of it", 40, {15: ()}, transfers(9, 0)),
    Case(
        "quick exports and imports make up for nothing",
        40,
        {18: (*slow("read-latency"), *slow("write-latency"))},
        {
            **{within("GET", bound): growing((30, 20), (9, 20)) for bound in ("0.05", "0.1")},
            **{within("PUT", bound): growing((30, 20), (9, 20)) for bound in ("0.1", "0.25")},
            **transfers(300, 300),
        },
    ),
    Case(
        "no bucket has the bound: everything is late",
        40,
        {13: tuple(each for each in (*FAST, *SLOWLY) if "Availability" not in str(each))},
        dict.fromkeys((within("GET", "0.1"), within("PUT", "0.25"), invalidated("0.25"))),
    ),
    Case(
        "all is wrong with another job's target, and its requests fail",
        40,
        {15: ()},
        others={"stranger": sick(40)},
        values={"count(credenza:slo_requests:rate5m)": 5.0},
    ),
)
BOUNDS = (*RAMPS, *COUNTS, *APART, *OTHER)
