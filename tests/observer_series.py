"""Series of collectors, Jaeger, Loki and Alertmanager, and alerts that they make."""

from collections.abc import Mapping

from rule_cases import TARGETS, Case, Firing, Series, alert, growing, level

STEPS = 120
"""An hour."""

JAEGER = 'exporter="otlp_http/jaeger"'
LOKI = 'exporter="otlp_http/loki"'
TO_JAEGER = f'{{{JAEGER},server_address="jaeger",server_port="4318",url_path="/v1/traces"}}'
TO_LOKI = f'{{{LOKI},server_address="loki",server_port="3100",url_path="/otlp/v1/logs"}}'

SENT = {
    "collector": f"otelcol_exporter_sent_spans_total{TO_JAEGER}",
    "node-logs": f"otelcol_exporter_sent_log_records_total{TO_LOKI}",
}
LOST = {
    "collector": f"otelcol_exporter_send_failed_spans_total{TO_JAEGER}",
    "node-logs": f"otelcol_exporter_send_failed_log_records_total{TO_LOKI}",
}
REFUSED = 'otelcol_receiver_refused_spans_total{receiver="otlp",transport="http"}'
NOT_STORED = 'otelcol_exporter_send_failed_spans_total{exporter="jaeger_storage_exporter"}'
DISK = "loki_ingester_wal_disk_full_failures_total"
FLUSHES = "loki_ingester_chunks_flush_failures_total"
RELOADED = "alertmanager_config_last_reload_successful"
HERE = {"namespace": "credenza-prod"}
ALWAYS, EVER, NEVER = growing((50, STEPS)), level((1, STEPS)), growing((0, STEPS))


QUEUES = {
    "collector": {"data_type": "traces", "exporter": "otlp_http/jaeger"},
    "node-logs": {"data_type": "logs", "exporter": "otlp_http/loki"},
}


def queue(job: str, size: str, sent: str = ALWAYS) -> dict[str, str]:
    """Return the series of what waits in a collector, of 1000 that may, and of what it has sent."""
    own = ",".join(f'{name}="{value}"' for name, value in QUEUES[job].items())
    return {
        "up": EVER,
        f"otelcol_exporter_queue_size{{{own}}}": size,
        f"otelcol_exporter_queue_capacity{{{own}}}": level((1000, STEPS)),
        SENT[job]: sent,
    }


def discarded(reason: str) -> str:
    """Return the series of lines that Loki has refused."""
    own = f'policy="",reason="{reason}",retention_hours="168",tenant="fake"'
    return f"loki_discarded_samples_total{{{own}}}"


def answered(status: str, route: str = "otlp_v1_logs", method: str = "POST") -> str:
    """Return the series of Loki's answers."""
    own = f'method="{method}",route="{route}",status_code="{status}",ws="false"'
    return f"loki_request_duration_seconds_count{{{own}}}"


def failed(integration: str, reason: str = "other") -> str:
    """Return the series of notifications that failed."""
    own = f'{{integration="{integration}",reason="{reason}"}}'
    return f"alertmanager_notifications_failed_total{own}"


def of(name: str, target: str, *without: str, severity: str = "ticket", **labels: str) -> Firing:
    """Return an alert about a target, without some of its labels."""
    kept = {key: value for key, value in TARGETS[target].items() if key not in without}
    return alert(name, severity, kept, **labels)


def some(count: float, minute: int = 20) -> str:
    """Return a counter that grows by so many at a minute."""
    return growing((0, 2 * minute), (count, 1), (0, STEPS - 2 * minute - 1))


def more(count: float, missed: int) -> str:
    """Return a counter that grows by so many at minute 20, and has counted before.

    A scrape is missed: a window that begins there is not full, and what the counter grew by in it
    is extrapolated, as from most scrapes that are not exactly in time.
    """
    return level((100, 2 * missed), (None, 1), (100, 39 - 2 * missed), (100 + count, STEPS - 40))


def lasting(count: float, minute: int = 20) -> str:
    """Return a counter that grows by so many at each step from a minute on."""
    return growing((0, 2 * minute), (count, STEPS - 2 * minute))


def first(count: float, minute: int = 20) -> str:
    """Return a counter that is not there before its first failures, at a minute."""
    return f"{level((None, 2 * minute))} {level((count, STEPS - 2 * minute))}"


def case(name: str, expected: Mapping[int, tuple[Firing, ...]], **others: Series) -> Case:
    """Return a case of series of targets; `_` stands for `-` in their names."""
    found = {target.replace("_", "-"): series for target, series in others.items()}
    return Case(name, STEPS, expected, others=found)
