"""Redis as the service sees it: operations, the breaker, coherence."""

from typing import Final

from boards import states
from boards.board import board, row
from boards.panels import graph, stat
from boards.queries import NAMED, REPLICA, of, per_second, quantile, recorded, share

SECONDS: Final = "credenza_redis_seconds"
CACHE: Final = "credenza_cache_total"
OF_REDIS: Final = 'layer="redis"'
ARRIVAL: Final = states.SECONDS_OF_ARRIVAL
ARRIVED: Final = per_second(f"{ARRIVAL}_count", by=REPLICA)
FRESHNESS: Final = 'slo="freshness"'
IN_TIME: Final = 'le="0.25"'

NOW: Final = row(
    "Now",
    states.breaker(4),
    stat(
        "Operations",
        "Operations that Redis was asked for each second, by all replicas.",
        "ops",
        (per_second(f"{SECONDS}_count"), ""),
    ),
    stat(
        "p99 of operations",
        "99 of 100 operations take less than this. Redis is given up after 0.25 s.",
        "s",
        (quantile(0.99, SECONDS), ""),
        steps={0: "green", 0.025: "orange", 0.25: "red"},
    ),
    stat(
        "Hits",
        "Share of the look-ups in Redis that found something. They come after a miss in the near "
        "cache, so that it may be low where the near cache is good.",
        "percentunit",
        (share(CACHE, 'outcome="hit"', OF_REDIS, 'outcome=~"hit|miss"'), ""),
    ),
    states.coherence(4),
    stat(
        "Fresh within the bound",
        "Share of the messages of the last 5 minutes that arrived within the bound of the "
        "objective `freshness`.",
        "percentunit",
        (f"1 - max({recorded('credenza:slo_errors:ratio_rate5m', FRESHNESS)})", ""),
        steps={0: "red", 0.99: "green"},
        decimals=2,
    ),
)

OPERATIONS: Final = row(
    "Operations",
    graph(
        "Operations by name",
        "look: a read asks. fill: a read has brought what was missing. wrote and drop: a write "
        "tells. generation: the cache begins anew after Redis was away.",
        "ops",
        (per_second(f"{SECONDS}_count", by="operation"), "{{operation}}"),
        stacked=True,
    ),
    graph(
        "p50 by operation",
        "Half of the operations take less than this. A rise of all: the network, or a processor "
        "that is short.",
        "s",
        (quantile(0.5, SECONDS, by="operation"), "{{operation}}"),
    ),
    graph(
        "p99 by operation",
        "99 of 100 operations take less than this. Redis is given up after 0.25 s.",
        "s",
        (quantile(0.99, SECONDS, by="operation"), "{{operation}}"),
        limit=0.25,
    ),
)

BREAKER: Final = row(
    "Breaker",
    graph(
        "Look-ups by outcome",
        "Any `error` is Redis failing; answers stay right and come from PostgreSQL.",
        "ops",
        (per_second(CACHE, OF_REDIS, by="outcome"), "{{outcome}}"),
        colours={"hit": "green", "miss": "blue", "error": "red"},
    ),
    states.breakers(),
    graph(
        "Operations by replica",
        "A replica that asks less than the others has an open breaker, or gets fewer requests.",
        "ops",
        (per_second(f"{SECONDS}_count", by=REPLICA), NAMED),
    ),
)

COHERENCE: Final = row(
    "Coherence and heartbeat",
    graph(
        "Messages that arrive",
        "Invalidations that each replica takes from the others. None while others write: it has "
        "lost the channel. None with one process.",
        "ops",
        (ARRIVED, NAMED),
    ),
    graph(
        "Delay of messages",
        "From a write to its arrival in another process. After 1 s without an answered heartbeat "
        "a process leaves its near cache unused.",
        "s",
        (quantile(0.5, ARRIVAL), "p50"),
        (quantile(0.9, ARRIVAL), "p90"),
        (quantile(0.99, ARRIVAL), "p99"),
    ),
    graph(
        "Near cache by replica",
        "What a replica holds in its own memory. Who loses the channel empties it at once, and "
        "fills it when the channel is back.",
        "bytes",
        (f"max by ({REPLICA}) ({of('credenza_cache_near_bytes')})", NAMED),
    ),
    states.heartbeats(),
    graph(
        "Near hits by replica",
        "Reads that a replica answers from its own memory. Zero while requests come: its "
        "heartbeat is not answered, and it asks Redis or PostgreSQL.",
        "ops",
        (per_second(CACHE, 'layer="near"', 'outcome="hit"', by=REPLICA), NAMED),
    ),
    graph(
        "Late messages",
        "Share of messages that took longer than 0.25 s, the bound of the objective `freshness`.",
        "percentunit",
        (
            f"1 - {per_second(f'{ARRIVAL}_bucket', IN_TIME, by=REPLICA)} / {ARRIVED}",
            NAMED,
        ),
        top=1,
    ),
)

BOARD: Final = board(
    "redis",
    "Credenza Redis",
    "Redis as the service sees it: how long operations take, whether it is asked at all, and how "
    "fast processes learn of each other's writes. Memory, evictions and clients of the server "
    "need an exporter of Redis, which is not part of this.",
    *(NOW, OPERATIONS, BREAKER, COHERENCE),
)
