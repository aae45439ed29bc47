"""Cases of the heartbeat of the cache: when Redis has last answered a replica."""

from rule_cases import POD, SECOND, Case, alert, level
from service_series import STEPS

BREAKER = (alert("CredenzaRedisBreakerOpen", "ticket", POD),)


def heartbeats(*ages: float) -> dict[str, str]:
    """Return the series of a replica by how old its last heartbeat is at each scrape."""
    sent = (f"{30 * step - age:g}" for step, age in enumerate(ages))
    return {"credenza_cache_heartbeat_timestamp_seconds": " ".join(sent)}


HEARTBEAT = (
    Case(
        "heartbeats are answered late, and the near cache is not used",
        STEPS,
        {14: (), 20: (alert("CredenzaHeartbeatLate", "ticket", POD),), 29: ()},
        heartbeats(*[0.2] * 20, *[1.5] * 25, *[0.2] * 15),
    ),
    Case(
        "Redis comes and goes, and is away most of the time",
        STEPS,
        {22: (alert("CredenzaHeartbeatLate", "ticket", POD),)},
        {
            **heartbeats(*[0.2] * 20, *[0.2, 4, 34, 64] * 10),
            "credenza_cache_breaker_open": level((0, 20), *[(0, 1), (1, 3)] * 10),
        },
    ),
    Case(
        "Redis comes and goes, and is there most of the time",
        STEPS,
        {29: ()},
        heartbeats(*[0.2] * 20, *[0.2, 4, 0.2, 0.2] * 10),
    ),
    Case("heartbeats are answered within a second", STEPS, {29: ()}, heartbeats(*[0.9] * 60)),
    Case(
        "heartbeats are answered a little late",
        STEPS,
        {29: (alert("CredenzaHeartbeatLate", "ticket", POD),)},
        heartbeats(*[1.2] * 60),
    ),
    Case(
        "heartbeats are late for five minutes",
        STEPS,
        {14: (), 16: (), 18: ()},
        heartbeats(*[0.2] * 20, *[1.5] * 10, *[0.2] * 30),
    ),
    Case(
        "Redis is away, and no heartbeat is answered",
        STEPS,
        {14: (), **dict.fromkeys((16, 20, 24), BREAKER), 26: (), 28: ()},
        {
            **heartbeats(*[0.2] * 20, *(30.0 * step for step in range(30)), *[0.2] * 10),
            "credenza_cache_breaker_open": level((0, 20), (1, 30), (0, 10)),
        },
    ),
    Case(
        "one of two replicas has a late heartbeat",
        STEPS,
        {20: (alert("CredenzaHeartbeatLate", "ticket", SECOND),)},
        heartbeats(*[0.2] * 60),
        others={"second": {"up": level((1, STEPS)), **heartbeats(*[1.5] * 60)}},
    ),
)
