"""Documents and the cache: what is written, how reads are answered, what moves in bulk."""

from typing import Final

from boards import states
from boards.board import board, row
from boards.panels import graph, stat
from boards.queries import NAMED, REPLICA, mean, of, per_second, quantile, share

REQUESTS: Final = "http_requests_total"
SECONDS: Final = "http_request_duration_seconds"
STATEMENTS: Final = "credenza_database_statement_seconds_count"
CACHE: Final = "credenza_cache_total"
LOOKED: Final = 'outcome=~"hit|miss"'
LISTS: Final = 'handler=~"/data|/v1/data/{collection}", method="GET"'
BULK: Final = 'handler=~".*/_(import|export)"'

WRITES: Final = row(
    "Writes",
    graph(
        "Documents written",
        "Acknowledged writes by verb. Refused ones do not count. Zero while clients write: look "
        "at the 5xx.",
        "wps",
        (per_second("credenza_documents_written_total", by="verb"), "{{verb}}"),
        stacked=True,
    ),
    graph(
        "Members of a group",
        "How many requests share a statement, on the average, by kind. 1 where nobody waits; the "
        "busier the service, the more.",
        "none",
        (mean("credenza_group_members", by="kind"), "{{kind}}"),
    ),
    states.waiting(),
)

READS: Final = row(
    "Reads and lists",
    graph(
        "Reads and lists",
        "Requests for one document, and for pages of a collection.",
        "reqps",
        (per_second(REQUESTS, 'handler=~".*/{id}"', 'method="GET"'), "documents"),
        (per_second(REQUESTS, LISTS), "lists"),
    ),
    graph(
        "Duration of lists",
        "Half of the lists, and 99 of 100, take less than this. Filters and orders by a field "
        "that no index serves read the whole collection.",
        "s",
        (quantile(0.5, SECONDS, LISTS), "p50"),
        (quantile(0.99, SECONDS, LISTS), "p99"),
    ),
    graph(
        "Statements a request",
        "How many statements a request costs on average. Below 1 the cache answers reads; probes "
        "count as requests.",
        "none",
        (f"{per_second(STATEMENTS)} / {per_second(REQUESTS)}", "statements"),
    ),
)

LAYERS: Final = row(
    "Cache",
    stat(
        "Hits",
        "Share of look-ups in the processes' own memory that were answered there. After a start "
        "it climbs.",
        "percentunit",
        (share(CACHE, 'outcome="hit"', 'layer="near"', LOOKED), ""),
        width=8,
    ),
    states.breaker(8),
    states.coherence(8),
    graph(
        "Hits by layer",
        "Share of look-ups that the layer answered. After a start it climbs; a fall without one "
        "means more distinct documents than fit, or many writes.",
        "percentunit",
        (share(CACHE, 'outcome="hit"', LOOKED, by="layer"), "{{layer}}"),
        top=1,
        width=12,
    ),
    graph(
        "Look-ups by layer and outcome",
        "Redis is asked after a miss in the near cache. Any `error` is Redis failing; answers "
        "stay right.",
        "ops",
        (per_second(CACHE, by="layer, outcome"), "{{layer}} {{outcome}}"),
        width=12,
    ),
    graph(
        "Invalidation delay",
        "From a write to its arrival in another process. Near 1 s other replicas stop trusting "
        "their near cache. Empty with one process.",
        "s",
        (quantile(0.5, states.SECONDS_OF_ARRIVAL), "p50"),
        (quantile(0.99, states.SECONDS_OF_ARRIVAL), "p99"),
    ),
    states.heartbeats(),
    states.breakers(),
    graph(
        "Documents held",
        "Bytes of documents that each replica holds, up to NEAR_CACHE_BYTES together with lists. "
        "A drop to zero is a lost connection to Redis.",
        "bytes",
        (f"max by ({REPLICA}) ({of('credenza_cache_near_bytes')})", NAMED),
        width=12,
    ),
    graph(
        "Lists held",
        "Bytes of pages of lists that each replica holds.",
        "bytes",
        (f"max by ({REPLICA}) ({of('credenza_cache_list_bytes')})", NAMED),
        width=12,
    ),
)

BULKS: Final = row(
    "Imports and exports",
    graph(
        "Imports and exports",
        "Requests that move a collection in bulk, by route and class of status.",
        "reqps",
        (per_second(REQUESTS, BULK, by="handler, status"), "{{handler}} {{status}}"),
    ),
    graph(
        "Duration of imports and exports",
        "99 of 100 take less than this. They take as long as their data is large; buckets end at "
        "5 s.",
        "s",
        (quantile(0.99, SECONDS, BULK, by="handler"), "{{handler}}"),
    ),
    graph(
        "Documents and bytes imported",
        "Documents that imports have written, and the bytes that were read of their bodies. Of "
        "exports, whose answers have no Content-Length, no size is known.",
        "none",
        (per_second("credenza_documents_written_total", 'verb="import"'), "documents a second"),
        (per_second("http_request_size_bytes_sum", 'handler=~".*/_import"'), "bytes a second"),
    ),
)

BOARD: Final = board(
    "documents",
    "Credenza documents and cache",
    "What is written and read, whether the cache answers it, how fast other processes learn of a "
    "write, and what moves in bulk.",
    *(WRITES, READS, LAYERS, BULKS),
)
