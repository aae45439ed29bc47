"""Who watches is watched: a collector that sends nothing is told of, and each part is scraped."""

from typing import Any

from observe.conftest import Say, Stack
from observe.looking import Mark, page_of, without_spans
from observe.processes import steady_port
from servers import until
from test_observer_metrics import NAME, OBSERVER_RULES

ALERT = "CollectorSendsNothing"
REQUESTS = 20
RARE = {"otelcol_exporter_send_failed_log_records_total", "loki_discarded_samples_total"}
"""What nobody shows before it has happened; tests/exposed has it."""


def messages(stack: Stack, status: str) -> list[dict[str, Any]]:
    """Return the alerts of the tickets about it that have come."""
    return [
        alert
        for message in stack.told.inbox.of("webhook", ALERT)
        if message["status"] == status and message["receiver"] == "ticket"
        for alert in message["alerts"]
        if alert["labels"]["alertname"] == ALERT
    ]


def lead(stack: Stack, jaeger: str) -> None:
    """Start the collector of traces anew with another address of Jaeger."""
    stack.traces.stop()
    stack.traces.given["JAEGER"] = jaeger
    stack.traces.start()


def test_each_part_is_scraped(stack: Stack) -> None:
    """Prometheus has collectors, Jaeger, Loki and Alertmanager up, each once."""

    def health() -> list[tuple[str, str]]:
        found = stack.prometheus.data("targets", state="active")["activeTargets"]
        return sorted((each["labels"]["job"], each["health"]) for each in found)

    jobs = ("alertmanager", "collector", "credenza", "jaeger", "loki", "node-logs", "prometheus")
    until(lambda: health() == [(job, "up") for job in jobs], f"{jobs} are up")


def test_their_rules_ask_for_what_there_is(stack: Stack) -> None:
    """Each name that rules about them ask for is one that Prometheus has, but for failures."""
    asked = {name for rule in OBSERVER_RULES for name in NAME.findall(rule["expr"])}
    mark = Mark.new()
    with stack.service.client() as client:
        client.get("/v1/data/asked", headers=mark.fields).raise_for_status()
    until(lambda: asked - stack.prometheus.seen().keys() <= RARE, f"series of {asked}")


def test_a_collector_that_sends_nothing_is_a_ticket(stack: Stack, say: Say) -> None:
    """Its way to Jaeger is cut: a ticket comes, and with its way back the end, and all spans."""
    right = stack.traces.given["JAEGER"]
    marks = [Mark.new() for _ in range(REQUESTS)]
    lead(stack, f"http://127.0.0.1:{steady_port()}")
    say("the collector sends to where nobody listens")
    try:
        with stack.service.client() as client:
            for mark in marks:
                client.get("/v1/data/cut", headers=mark.fields).raise_for_status()
        until(lambda: bool(messages(stack, "firing")), "a ticket")
    finally:
        lead(stack, str(right))
    say("a ticket has come, and the collector is led to Jaeger again")
    until(lambda: without_spans(stack, marks) == set(), "all spans in Jaeger")
    until(lambda: bool(messages(stack, "resolved")), "the end of the ticket")
    say("all spans are in Jaeger, and the end was told")
    (alert,) = {alert["fingerprint"]: alert for alert in messages(stack, "firing")}.values()
    assert alert["labels"]["severity"] == "ticket"
    assert alert["labels"]["job"] == "collector"
    assert page_of(alert["annotations"]["runbook_url"]) == f"{ALERT}.md"
    firing = {each["labels"]["alertname"] for each in stack.prometheus.data("alerts")["alerts"]}
    assert not firing & {"CollectorLosesData", "CollectorQueueFills", "JaegerFails"}
