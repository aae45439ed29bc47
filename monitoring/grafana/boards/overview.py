"""The overview: is it well, does it keep what is promised, and if not, where to look."""

from typing import Final

from boards import states
from boards.board import board, row
from boards.panels import STATUS, graph, now, stat, table
from boards.queries import USERS, per_second, quantile, recorded, share

REQUESTS: Final = "http_requests_total"
SECONDS: Final = "http_request_duration_seconds"
BURNS: Final = {"5m": "5 minutes", "1h": "1 hour", "6h": "6 hours", "1d": "1 day", "3d": "3 days"}
BURN_STEPS: Final = {
    "mode": "absolute",
    "steps": [
        {"color": "green", "value": None},
        {"color": "orange", "value": 1},
        {"color": "red", "value": 6},
    ],
}
LEFT_STEPS: Final = {
    "mode": "absolute",
    "steps": [
        {"color": "red", "value": None},
        {"color": "orange", "value": 0},
        {"color": "green", "value": 0.5},
    ],
}
COLOURED: Final = {"type": "color-text"}


def _burn(window: str) -> str:
    return f"max by (slo) ({recorded(f'credenza:slo_burn_rate:ratio_rate{window}')})"


NOW: Final = row(
    "Now",
    states.replicas_up(3),
    states.versions(3),
    stat(
        "Requests",
        "Requests each second, without probes and scrapes. Compare with the same hour of other "
        "days.",
        "reqps",
        (per_second(REQUESTS, USERS), ""),
        width=3,
    ),
    stat(
        "Answered 5xx",
        "Share of requests that the service failed, without probes. Anything above zero is worth "
        "a look: nothing that a client sends is answered 5xx.",
        "percentunit",
        (share(REQUESTS, 'status="5xx"', USERS), ""),
        steps={0: "green", 0.0001: "orange", 0.01: "red"},
        width=3,
    ),
    stat(
        "p99 latency",
        "99 of 100 requests are faster, without probes. Look below for the handler that slows it.",
        "s",
        (quantile(0.99, SECONDS, USERS), ""),
        steps={0: "green", 0.25: "orange", 1: "red"},
        width=3,
    ),
    states.database(3),
    states.breaker(3),
    stat(
        "Refused",
        "Requests answered 503 at once: MAX_IN_FLIGHT was reached, too many exports ran, or too "
        "many waited for the database. Above zero: add replicas, or find what is slow.",
        "reqps",
        (per_second("credenza_requests_refused_total"), ""),
        steps={0: "green", 0.1: "red"},
        width=3,
    ),
)

LEVELS: Final = row(
    "Service levels over 30 days",
    table(
        "Objectives, and how fast their budgets burn",
        "For each objective what it asks for, what was reached in 30 days, what is left of the "
        "error budget, and the burn rate by window. At 1 the budget lasts just as long as the 30 "
        "days. Of several namespaces the worst.",
        {
            "slo": {"name": "objective"},
            "Value #objective": {"name": "target", "unit": "percentunit"},
            "Value #reached": {"name": "reached", "unit": "percentunit", "decimals": 3},
            "Value #left": {
                "name": "budget left",
                "unit": "percentunit",
                "thresholds": LEFT_STEPS,
                "custom.cellOptions": COLOURED,
            },
            **{
                f"Value #{window}": {
                    "name": words,
                    "decimals": 2,
                    "thresholds": BURN_STEPS,
                    "custom.cellOptions": COLOURED,
                }
                for window, words in BURNS.items()
            },
        },
        [
            now("objective", "max by (slo) (credenza:slo_objective:ratio)"),
            now("reached", f"1 - max by (slo) ({recorded('credenza:slo_errors:ratio_rate30d')})"),
            now("left", f"min by (slo) ({recorded('credenza:slo_budget_left:ratio30d')})"),
            *(now(window, _burn(window)) for window in BURNS),
        ],
        first=[{"id": "merge", "options": {}}],
        width=14,
    ),
    table(
        "Alerts that fire",
        "Watchdog always fires: that is how Alertmanager is known to be reached. Each other one "
        "has a page of its name in docs/runbooks. `page` wakes somebody, `ticket` waits.",
        {
            "alertname": {"name": "alert"},
            "severity": {"name": "severity"},
            "slo": {"name": "objective"},
            "namespace": {"name": "namespace"},
            "instance": {"name": "address"},
        },
        [now("alerts", 'ALERTS{alertstate="firing", namespace=~"$namespace|"}')],
        width=10,
    ),
    graph(
        "Error budget left",
        "1 is all of the budget of 30 days; below 0 more failed than the objective allows, and "
        "the error budget policy says what follows.",
        "percentunit",
        (f"min by (slo) ({recorded('credenza:slo_budget_left:ratio30d')})", "{{slo}}"),
        top=1,
        below=True,
    ),
    graph(
        "Burn rate over 1 hour",
        "Above the line, and in the last 5 minutes too, it is a page: in an hour 2 % of the "
        "budget of 30 days are spent.",
        "none",
        (_burn("1h"), "{{slo}}"),
        limit=14.4,
    ),
    graph(
        "Burn rate over 3 days",
        "Above the line, and in the last 6 hours too, it is a ticket: the budget will not last "
        "for 30 days.",
        "none",
        (_burn("3d"), "{{slo}}"),
        limit=1,
    ),
)

TRAFFIC: Final = row(
    "Requests",
    graph(
        "Requests by handler",
        "Which routes are asked. A handler that appears or vanishes is a client that changed. "
        "`none` is what matched no route or had no token.",
        "reqps",
        (per_second(REQUESTS, by="handler"), "{{handler}}"),
        stacked=True,
        width=12,
    ),
    graph(
        "Answers by class of status",
        "4xx are the clients' errors, 5xx the service's. A step in 4xx often is a client with an "
        "old token or version; 5xx with full database connections is overload.",
        "reqps",
        (per_second(REQUESTS, by="status"), "{{status}}"),
        stacked=True,
        colours=STATUS,
        width=12,
    ),
)

ERRORS: Final = row(
    "Errors",
    graph(
        "Answered 5xx by handler",
        "Share of each route's requests that the service failed. All of them: a dependency. One: "
        "look for what it needs.",
        "percentunit",
        (share(REQUESTS, 'status="5xx"', USERS, by="handler"), "{{handler}}"),
        width=12,
    ),
    graph(
        "Answered 4xx by handler",
        "Share of each route's requests that were refused as the client's fault: not found, not "
        "allowed, out of date, or not readable.",
        "percentunit",
        (share(REQUESTS, 'status="4xx"', USERS, by="handler"), "{{handler}}"),
        width=12,
    ),
)

DURATION: Final = row(
    "Duration",
    graph(
        "p50 latency by handler",
        "What half of the requests wait at the most. A cached read is below a millisecond; a rise "
        "here concerns everybody.",
        "s",
        (quantile(0.5, SECONDS, by="handler"), "{{handler}}"),
    ),
    graph(
        "p95 latency by handler",
        "What 19 of 20 requests wait at the most. A rise here alone is a part of the data or of "
        "the clients: look for a handler.",
        "s",
        (quantile(0.95, SECONDS, by="handler"), "{{handler}}"),
    ),
    graph(
        "p99 latency by handler",
        "What 99 of 100 requests wait at the most. Imports, exports and sorts by a field are slow "
        "by nature. Buckets end at 5 s.",
        "s",
        (quantile(0.99, SECONDS, by="handler"), "{{handler}}"),
    ),
)

BOARD: Final = board(
    "overview",
    "Credenza overview",
    "Is it well, does it keep what is promised, and if not, where to look.",
    *(NOW, LEVELS, TRAFFIC, ERRORS, DURATION),
)
