"""Who watches is watched: a collector that sends nothing is told of, and each part is scraped."""

import re

from observe.conftest import Say, Stack
from observe.looking import Mark, messages, page_of, without_spans
from observe.processes import steady_port
from servers import until
from shown import exposed
from test_observer_metrics import JOBS, NAME, OBSERVER_RULES

ALERT = "CollectorSendsNothing"
REQUESTS = 20
RARE = {
    ("collector", "otelcol_exporter_send_failed_spans_total"),
    ("node-logs", "otelcol_exporter_send_failed_log_records_total"),
    ("loki", "loki_discarded_samples_total"),
}
"""What nobody shows before it has happened; tests/exposed has it."""


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


def asked() -> set[tuple[str, str]]:
    """Return what their rules ask for, by job; where no job is named, of those that show it."""
    text = " ".join(rule["expr"] for rule in OBSERVER_RULES)
    found = {
        (job, name)
        for name, jobs in re.findall(rf'({NAME.pattern})\{{[^}}]*job=~?"([^"]+)"', text)
        for job in jobs.split("|")
    }
    others = set(NAME.findall(text)) - {name for _, name in found}
    return found | {(job, name) for job in JOBS for name in others & exposed(job).keys()}


def test_their_rules_ask_for_what_there_is(stack: Stack) -> None:
    """Each name that rules about them ask a job for is one that Prometheus has of it."""
    mark = Mark.new()
    with stack.service.client() as client:
        client.get("/v1/data/asked", headers=mark.fields).raise_for_status()

    def missing() -> set[tuple[str, str]]:
        seen = stack.prometheus.seen()
        there = {(each.get("job", ""), name) for name, series in seen.items() for each in series}
        return asked() - there - RARE

    until(lambda: not missing(), "a series of each name")


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
        until(lambda: bool(messages(stack, ALERT, "ticket", "firing")), "a ticket")
    finally:
        lead(stack, str(right))
    say("a ticket has come, and the collector is led to Jaeger again")
    until(lambda: without_spans(stack, marks) == set(), "all spans in Jaeger")
    until(lambda: bool(messages(stack, ALERT, "ticket", "resolved")), "the end of the ticket")
    say("all spans are in Jaeger, and the end was told")
    (alert,) = {
        alert["fingerprint"]: alert for alert in messages(stack, ALERT, "ticket", "firing")
    }.values()
    assert alert["labels"]["severity"] == "ticket"
    assert alert["labels"]["job"] == "collector"
    assert page_of(alert["annotations"]["runbook_url"]) == f"{ALERT}.md"
    firing = {each["labels"]["alertname"] for each in stack.prometheus.data("alerts")["alerts"]}
    assert not firing & {"CollectorLosesData", "CollectorQueueFills", "JaegerFails"}
