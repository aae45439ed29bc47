"""Cases of what comes in bursts: once it tells nobody, over and over it does.

tests/service_cases.py has them among its own. An increase is seen for as long as the window, but
for an interval of scrapes. Prometheus 3 does not count a sample at the very beginning of a window,
which Prometheus 2 does.
"""

from rule_cases import POD, Case, Firing, alert, growing, invalidated
from service_series import REFUSED, STEPS, WAITS, errors

EVERY = 11
"""Steps between bursts: five and a half minutes."""


def bursts(size: float, number: int) -> str:
    """Return a counter that grows so much at once, so many times, from minute 10 on."""
    last = STEPS - 20 - EVERY * number
    return growing((0, 20), *(((size, 1), (0, EVERY - 1)) * number), (0, last))


def waiting(number: int) -> dict[str, str]:
    """Return bursts of statements, each of which waits for a connection."""
    return {
        **{f'{WAITS}_bucket{{le="{n}"}}': growing((0, STEPS)) for n in ("0.1", "0.25")},
        **{f'{WAITS}_bucket{{le="{n}"}}': bursts(100, number) for n in ("0.5", "+Inf")},
        f"{WAITS}_count": bursts(100, number),
    }


def silent(first: int) -> dict[int, tuple[Firing, ...]]:
    """Return that nothing fires from a minute on."""
    return dict.fromkeys(range(first, STEPS // 2), ())


def late(number: str) -> dict[str, str]:
    """Return the series of invalidations that all take longer than a second."""
    return {
        **{invalidated(bound): growing((0, STEPS)) for bound in ("0.1", "0.25", "1.0")},
        **{invalidated(bound): number for bound in ("2.5", "+Inf")},
        "credenza_cache_invalidation_seconds_count": number,
    }


WAIT = (alert("CredenzaPoolWaits", "ticket", POD),)
LATE = (alert("CredenzaInvalidationsLate", "ticket"),)
REFUSES = (alert("CredenzaRefusesRequests", "ticket"),)

BURSTS = (
    Case(
        "a burst of requests is refused",
        STEPS,
        silent(10),
        {REFUSED.format("requests"): bursts(50, 1)},
    ),
    Case(
        "bursts of requests are refused, over and over",
        STEPS,
        {16: (), 17: REFUSES, 20: REFUSES, 26: REFUSES},
        {REFUSED.format("requests"): bursts(50, 3)},
    ),
    Case("statements of a burst wait", STEPS, silent(10), waiting(1)),
    Case(
        "statements of bursts wait, over and over",
        STEPS,
        {19: (), 21: WAIT, 28: WAIT},
        waiting(3),
    ),
    Case(
        "all invalidations are late for five minutes, and none before and after",
        STEPS,
        {14: (), 17: LATE, 28: ()},
        {
            invalidated(bound): growing((30, 20), (0, 10), (30, 30))
            for bound in ("0.1", "0.25", "1.0")
        },
    ),
    Case("six invalidations in ten minutes are late", STEPS, silent(10), late(growing((0.3, 60)))),
    Case(
        "twelve failures of the database in ten minutes, one after the other",
        STEPS,
        {9: (), 25: (alert("CredenzaDatabaseErrors", "ticket", kind="away"),)},
        {errors("away"): growing((0, 20), (0.6, 40))},
    ),
)
