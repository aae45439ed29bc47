"""Series of the service where something is wrong."""

from rule_cases import growing, invalidated, level, requests, taken

STEPS = 60
"""Half an hour."""

BUSY = 'credenza_database_connections{state="busy"}'
WAITING = 'credenza_groups_waiting{kind="create"}'
WAITS = "credenza_database_wait_seconds"
REFUSED = 'credenza_requests_refused_total{{reason="{}"}}'


def errors(kind: str) -> str:
    """Return a series of failures of the database."""
    return f'credenza_database_errors_total{{kind="{kind}"}}'


def waits(quick: float, soon: float, number: float = 100) -> dict[str, str]:
    """Return so many statements a step: in 0.1 s, and in 0.25; the others in 0.5."""
    shares = {"0.1": quick, "0.25": soon, "0.5": number, "+Inf": number}
    return {
        **{f'{WAITS}_bucket{{le="{n}"}}': growing((each, STEPS)) for n, each in shares.items()},
        f"{WAITS}_count": growing((number, STEPS)),
    }


def invalidations(quick: float, soon: float) -> dict[str, str]:
    """Return 100 invalidations a step: so many in 0.25 s, and in 1; the others in 2.5."""
    shares = {"0.1": 0, "0.25": quick, "1.0": soon, "2.5": 100, "+Inf": 100}
    return {
        **{invalidated(bound): growing((each, STEPS)) for bound, each in shares.items()},
        "credenza_cache_invalidation_seconds_count": growing((100, STEPS)),
    }


def sick(steps: int) -> dict[str, str]:
    """Return the series of a target where everything is wrong."""
    ever, all_bad = level((1, steps)), growing((100, steps))
    return {
        "up": level((0, steps)),
        **{f'credenza_build_info{{version="0.{n}.0"}}': ever for n in (2, 3)},
        "credenza_database_up": level((0, steps)),
        BUSY: level((10, steps)),
        "credenza_database_connections_max": level((10, steps)),
        **{f'{WAITS}_bucket{{le="{n}"}}': growing((0, steps)) for n in ("0.1", "0.25")},
        **{f'{WAITS}_bucket{{le="{n}"}}': all_bad for n in ("0.5", "+Inf")},
        f"{WAITS}_count": all_bad,
        **{errors(kind): all_bad for kind in ("away", "busy", "failed", "timeout", "refused")},
        "credenza_cache_breaker_open": ever,
        **{invalidated(bound): growing((0, steps)) for bound in ("0.1", "0.25", "1.0")},
        **{invalidated(bound): all_bad for bound in ("2.5", "+Inf")},
        "credenza_cache_invalidation_seconds_count": all_bad,
        'credenza_requests_refused_total{reason="requests"}': all_bad,
        WAITING: level((1000, steps)),
        "process_start_time_seconds": growing((1, steps)),
        "process_resident_memory_bytes": level((1e9, steps)),
        "credenza_memory_limit_bytes": level((2**28, steps)),
        requests("GET", "5xx"): all_bad,
        requests("PUT", "5xx"): all_bad,
        taken("GET"): all_bad,
        taken("PUT"): all_bad,
    }
