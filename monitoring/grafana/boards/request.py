"""One request: from its id to its log lines and its trace, or from a slow bucket to both."""

from typing import Final

from boards.board import board, row, typed
from boards.panels import JAEGER, Json, graph, lines, link, logs, table, trace
from boards.queries import USERS, quantile

SECONDS: Final = "http_request_duration_seconds"
SERVICE: Final = '{service_name="credenza"}'
OF_REQUEST: Final = f'{SERVICE} | request_id!="" | request_id="$request_id"'
OF_TRACE: Final = f'{SERVICE} | trace_id!="" | trace_id="$trace_id"'
TO_TRACE: Final = link(
    "Show the trace below",
    ""
    "/d/credenza-request?${__url_time_range}&var-request_id=${request_id}&var-trace_id=${__value.raw}",
)
SEARCH: Final[Json] = {
    "datasource": JAEGER,
    "refId": "A",
    "queryType": "search",
    "service": "credenza",
    "tags": 'credenza.request_id="$request_id"',
    "limit": 20,
}

SLOW: Final = row(
    "Slow requests",
    graph(
        "Latency, with traces",
        "Each diamond is a request whose trace is kept: it names the trace, and leads to it. Only "
        "a service with a collector shows any, of the share that OTEL_TRACES_SAMPLER_ARG says.",
        "s",
        (quantile(0.5, SECONDS, USERS), "p50"),
        (quantile(0.99, SECONDS, USERS), "p99"),
        exemplars=True,
        width=24,
    ),
)

REQUEST: Final = row(
    "The request $request_id",
    logs(
        "Log lines of the request",
        "What the service has logged of the request whose id is typed in above. A client has it "
        "in X-Request-Id, and problems have it too. Nothing: outside of the time that is shown, "
        "or not of this service.",
        OF_REQUEST,
    ),
    table(
        "Traces that its log lines name",
        "The trace of each line that has one. A click on it shows the trace below, if it was "
        "recorded.",
        {
            "Time": {"name": "time"},
            "trace_id": {"name": "trace", "links": TO_TRACE},
        },
        [lines(f'{OF_REQUEST} | trace_id!=""')],
        first=[{"id": "extractFields", "options": {"source": "labels", "replace": False}}],
        height=6,
    ),
    table(
        "Traces that were recorded of it",
        "What Jaeger finds by the attribute credenza.request_id. A click on a trace shows it "
        "below.",
        {},
        [SEARCH],
        links={"/^trace ?ID$/i": TO_TRACE},
        height=6,
    ),
)

TRACE: Final = row(
    "The trace $trace_id",
    trace(
        "Trace",
        "What the request has waited for: Redis, a statement of PostgreSQL, the group that shared "
        "one. Nothing: it was not recorded; the share that is, OTEL_TRACES_SAMPLER_ARG says.",
        "$trace_id",
    ),
    logs(
        "Log lines of the trace",
        "What the service has logged of all requests of this trace, with their ids.",
        OF_TRACE,
    ),
)

BOARD: Final = board(
    "request",
    "Credenza request",
    "What happened to one request: begin with its id, from a client's X-Request-Id or a problem, "
    "or with a slow one on the latency. Logs come from Loki, traces from Jaeger.",
    *(SLOW, REQUEST, TRACE),
    more=(
        typed("request_id", "Request id", "As in X-Request-Id."),
        typed("trace_id", "Trace id", "32 hexadecimal digits; links fill it in."),
    ),
)
