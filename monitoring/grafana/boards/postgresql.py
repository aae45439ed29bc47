"""PostgreSQL as the service sees it: statements, the pool, failures."""

from typing import Final

from boards import states
from boards.board import board, row
from boards.panels import graph, stat, timeline
from boards.queries import NAMED, REPLICA, of, per_second, quantile

STATEMENT: Final = "credenza_database_statement_seconds"
WAIT: Final = "credenza_database_wait_seconds"
ERRORS: Final = "credenza_database_errors_total"
POOL: Final = "credenza_database_connections"
BUSY: Final = 'state="busy"'

NOW: Final = row(
    "Now",
    states.database(4),
    stat(
        "Statements",
        "SQL statements sent each second. Groups share one, so that they are fewer than writes.",
        "ops",
        (per_second(f"{STATEMENT}_count"), ""),
    ),
    stat(
        "p99 of statements",
        "99 of 100 statements take less than this, from sending to the last row.",
        "s",
        (quantile(0.99, STATEMENT), ""),
        steps={0: "green", 0.1: "orange", 1: "red"},
    ),
    stat(
        "p99 of waits",
        "99 of 100 statements wait less than this until the pool lends a connection.",
        "s",
        (quantile(0.99, WAIT), ""),
        steps={0: "green", 0.05: "orange", 0.25: "red"},
    ),
    stat(
        "Pool in use",
        "Share of the connections that the pools may have which is busy. At 100 % each further "
        "statement waits.",
        "percentunit",
        (f"sum({of(POOL, BUSY)}) / sum({of(f'{POOL}_max')})", ""),
        steps={0: "green", 0.8: "orange", 1: "red"},
    ),
    stat(
        "Failures",
        "Failures of the database each second, without those that are a client's fault.",
        "ops",
        (per_second(ERRORS, 'kind!="refused"'), ""),
        steps={0: "green", 0.001: "orange", 1: "red"},
    ),
)

STATEMENTS: Final = row(
    "Statements",
    graph(
        "Statements by name",
        "Statements sent to PostgreSQL. Reads that rise while requests do not: the cache lost its "
        "effect. `get_durability` and `reap_tombstones` are the service's own.",
        "ops",
        (per_second(f"{STATEMENT}_count", by="statement"), "{{statement}}"),
        stacked=True,
        width=12,
    ),
    graph(
        "Time spent in statements",
        "How many statements of each name are under way, on the average: the one on top is what "
        "the database works for.",
        "none",
        (per_second(f"{STATEMENT}_sum", by="statement"), "{{statement}}"),
        stacked=True,
        width=12,
    ),
    graph(
        "p50 of statements",
        "Half of the executions of each statement take less than this. A rise of all: the "
        "database or the way to it.",
        "s",
        (quantile(0.5, STATEMENT, by="statement"), "{{statement}}"),
        width=12,
    ),
    graph(
        "p99 of statements by name",
        "99 of 100 executions of each statement take less than this. `list_documents` depends on "
        "filter and order, imports on their size.",
        "s",
        (quantile(0.99, STATEMENT, by="statement"), "{{statement}}"),
        width=12,
    ),
)

POOLS: Final = row(
    "Pool",
    graph(
        "Connections",
        "Connections of all replicas by state, and how many they may have together: that must "
        "stay below what PostgreSQL allows (max_connections).",
        "none",
        (f"sum by (state) ({of(POOL)})", "{{state}}"),
        (f"sum({of(f'{POOL}_max')})", "allowed"),
    ),
    graph(
        "Busy connections by replica",
        "Share of the connections it may have that a replica uses. Near 100 % for long with "
        "rising latency: DATABASE_POOL_SIZE or PostgreSQL is the limit.",
        "percentunit",
        (
            f"sum by ({REPLICA}) ({of(POOL, BUSY)}) / sum by ({REPLICA}) ({of(f'{POOL}_max')})",
            NAMED,
        ),
        top=1,
    ),
    graph(
        "Wait for a connection",
        "How long half of the statements, and 99 of 100, wait until the pool lends a connection. "
        "More than a few ms: the pool is too small or the database too slow.",
        "s",
        (quantile(0.5, WAIT), "p50"),
        (quantile(0.99, WAIT), "p99"),
    ),
)

FAILURES: Final = row(
    "Failures",
    graph(
        "Failures by kind",
        "away: the connection is lost or cannot be made. busy: the pool lent none. failed: the "
        "database cannot. timeout: given up. refused: a client's fault.",
        "ops",
        (per_second(ERRORS, by="kind"), "{{kind}}"),
    ),
    timeline(
        "Database of each replica",
        "away while a replica has no answer from PostgreSQL. One replica alone: its network, or "
        "the limit of connections; all of them: PostgreSQL.",
        (f"min by ({REPLICA}) ({of('credenza_database_up')})", NAMED),
        states.DATABASE,
    ),
    states.waiting(),
    graph(
        "Indexes missing",
        "Indexes that collections' settings ask for and that are not made yet. Not 0 for long: one "
        "is being made, which the log tells when it is done, or cannot be, which it tells too.",
        "none",
        (f"max({of('credenza_indexes_missing')})", "missing"),
        width=24,
    ),
)

BOARD: Final = board(
    "postgresql",
    "Credenza PostgreSQL",
    "PostgreSQL as the service sees it: what statements cost, whether connections suffice, what "
    "fails. The server's own numbers (locks, WAL, vacuum, replication) need an exporter of "
    "PostgreSQL, which is not part of this.",
    *(NOW, STATEMENTS, POOLS, FAILURES),
)
