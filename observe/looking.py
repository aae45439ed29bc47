"""Requests that can be found again, and where they are found."""

import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import httpx2

from observe.conftest import Stack
from service import Running

OF_SERVICE = '{service_name="credenza"}'


class Mark(NamedTuple):
    """What a client calls its request, and the trace that the request is part of."""

    request_id: str
    trace_id: str

    @classmethod
    def new(cls) -> Self:
        """Return one that nobody had."""
        return cls(f"observe-{secrets.token_hex(8)}", secrets.token_hex(16))

    @property
    def fields(self) -> dict[str, str]:
        """The header fields of the request; its trace is recorded."""
        parent = f"00-{self.trace_id}-{secrets.token_hex(8)}-01"
        return {"X-Request-Id": self.request_id, "traceparent": parent}


class Span(NamedTuple):
    """A span as Jaeger has it."""

    name: str
    id: str
    parent: str
    links: list[str]
    tags: dict[str, Any]

    @classmethod
    def read(cls, found: dict[str, Any]) -> Self:
        """Return a span of an answer of Jaeger's API."""
        refs = found["references"]
        return cls(
            found["operationName"],
            found["spanID"],
            next((each["spanID"] for each in refs if each["refType"] == "CHILD_OF"), ""),
            [each["spanID"] for each in refs if each["refType"] == "FOLLOWS_FROM"],
            {tag["key"]: tag["value"] for tag in found["tags"]},
        )


def lines_of(stack: Stack, mark: Mark) -> list[tuple[dict[str, str], str]]:
    """Return the log lines that Loki has of a request."""
    return stack.loki.lines(f'{OF_SERVICE} | request_id="{mark.request_id}"')


def spans_of(stack: Stack, trace: str) -> list[Span]:
    """Return the spans that Jaeger has of a trace, in the order in which they began."""
    return [Span.read(found) for found in stack.jaeger.spans(trace)]


def exemplars(stack: Stack) -> set[str]:
    """Return the traces that are exemplars of a duration in Prometheus."""
    now = time.time()
    found = stack.prometheus.data(
        "query_exemplars",
        query="http_request_duration_seconds_bucket",
        start=now - 3600,
        end=now + 60,
    )
    return {each["labels"]["trace_id"] for series in found for each in series["exemplars"]}


def without_lines(stack: Stack, marks: list[Mark]) -> set[str]:
    """Return the requests whose log line Loki does not have."""
    found = stack.loki.lines(f'{OF_SERVICE} | request_id=~"observe-.+"')
    return {mark.request_id for mark in marks} - {labels["request_id"] for labels, _ in found}


def without_spans(stack: Stack, marks: list[Mark]) -> set[str]:
    """Return the requests whose own span Jaeger does not have."""
    return {
        mark.request_id
        for mark in marks
        if mark.request_id
        not in {span.tags.get("credenza.request_id") for span in spans_of(stack, mark.trace_id)}
    }


class Load:
    """Clients that write and read documents until they are told to stop."""

    def __init__(self) -> None:
        self.answered: list[tuple[float, Mark, int]] = []
        """When each answer was there, to which request, and its status."""
        self.lost: list[Mark] = []
        """Requests whose connection broke, or was refused."""
        self.ended = threading.Event()

    def statuses(self) -> set[int]:
        """Return which statuses there were."""
        return {status for _, _, status in self.answered}

    def last(self, count: int) -> list[Mark]:
        """Return the requests that were answered last."""
        return [mark for _, mark, _ in sorted(self.answered)[-count:]]

    def run(self, service: Running, pause: float) -> None:
        """Send one request after the other."""
        with service.client() as client:
            number = 0
            while not self.ended.is_set():
                number += 1
                mark = Mark.new()
                path = f"/v1/data/load/{threading.get_ident()}-{number // 2}"
                try:
                    if number % 2:
                        answer = client.get(path, headers=mark.fields)
                    else:
                        answer = client.put(path, json=number, headers=mark.fields)
                    self.answered.append((time.monotonic(), mark, answer.status_code))
                except httpx2.HTTPError:
                    self.lost.append(mark)
                time.sleep(pause)


@contextmanager
def load(service: Running, clients: int = 4, pause: float = 0.05) -> Iterator[Load]:
    """Have some clients work meanwhile."""
    found = Load()
    threads = [
        threading.Thread(target=found.run, args=(service, pause), daemon=True)
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        found.ended.set()
        for thread in threads:
            thread.join()


def messages(stack: Stack, alert: str, receiver: str, status: str) -> list[dict[str, Any]]:
    """Return the alerts of the messages about an alert that a receiver has got."""
    return [
        each
        for message in stack.told.inbox.of("webhook", alert)
        if message["status"] == status and message["receiver"] == receiver
        for each in message["alerts"]
        if each["labels"]["alertname"] == alert
    ]


def page_of(url: str) -> str:
    """Return the name of the runbook that an address is of."""
    found = re.fullmatch(r"https://\S+/docs/runbooks/(\w+\.md)", url)
    assert found is not None, url
    return found[1]
