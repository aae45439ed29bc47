"""Panels that several dashboards show: what is there, and what is open or waits."""

from typing import Final

from boards.panels import Json, graph, stat, timeline
from boards.queries import NAMED, REPLICA, of, quantile

DATABASE: Final = {"0": ("away", "red"), "1": ("there", "green")}
BREAKER: Final = {"0": ("closed", "green"), "1": ("open", "red")}
SECONDS_OF_ARRIVAL: Final = "credenza_cache_invalidation_seconds"


def replicas_up(width: int) -> Json:
    """Return how many processes Prometheus reaches."""
    return stat(
        "Replicas up",
        "Processes that Prometheus reaches. Fewer than you run: one is down, starts, or its "
        "metrics port cannot be reached.",
        "none",
        (f"sum({of('up')})", ""),
        steps={0: "red", 1: "green"},
        width=width,
    )


def versions(width: int) -> Json:
    """Return which versions run."""
    return stat(
        "Version",
        "What runs. Two versions at once are normal during a roll-out and at no other time.",
        "none",
        (f"sum by (version) ({of('credenza_build_info')})", "{{version}}"),
        text="name",
        width=width,
    )


def database(width: int) -> Json:
    """Return whether each replica has an answer from PostgreSQL."""
    return stat(
        "Database",
        "away: a replica has no answer from PostgreSQL, and its writes and uncached reads are 503.",
        "none",
        (f"min({of('credenza_database_up')})", ""),
        words=DATABASE,
        width=width,
    )


def breaker(width: int) -> Json:
    """Return whether a replica does not ask Redis."""
    return stat(
        "Breaker of Redis",
        "open: Redis failed and is not asked; the service answers from PostgreSQL, slower. closed "
        "is normal.",
        "none",
        (f"max({of('credenza_cache_breaker_open')})", ""),
        words=BREAKER,
        width=width,
    )


def breakers() -> Json:
    """Return when which replica did not ask Redis."""
    return timeline(
        "Breaker of each replica",
        "open while the replica does not ask Redis because it failed. One replica alone: its "
        "network; all of them: Redis.",
        (f"max by ({REPLICA}) ({of('credenza_cache_breaker_open')})", NAMED),
        BREAKER,
    )


def coherence(width: int) -> Json:
    """Return how fast other processes learn of a write."""
    return stat(
        "Coherence delay",
        "99 of 100 writes are known in the other processes within this time. Milliseconds are "
        "normal.",
        "s",
        (quantile(0.99, SECONDS_OF_ARRIVAL), ""),
        steps={0: "green", 0.25: "orange", 1: "red"},
        width=width,
    )


def heartbeats() -> Json:
    """Return how long ago Redis has answered each replica."""
    sent = of("credenza_cache_heartbeat_timestamp_seconds")
    return graph(
        "Age of the heartbeat",
        "How long before a scrape Redis has last answered on the channel of changes, also while "
        "nobody writes. 0.2 s is normal; after 1 s a replica leaves its near cache unused.",
        "s",
        # One that is answered while the scrape goes on is younger than the scrape.
        (f"clamp_min(max by ({REPLICA}) (timestamp({sent}) - ({sent} > 0)), 0)", NAMED),
        limit=1,
    )


def waiting() -> Json:
    """Return how many requests wait for a group."""
    return graph(
        "Waiting for a group",
        "Requests that wait for a shared statement to begin, by kind. They grow when the database "
        "slows down, before anything fails; over 100 for long is an alert.",
        "none",
        (f"sum by (kind) ({of('credenza_groups_waiting')})", "{{kind}}"),
    )
