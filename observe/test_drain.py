"""The end of a service: what its last answers were is known."""

import signal
import time

from observe.conftest import Say, Stack
from observe.looking import load, without_lines, without_spans
from servers import until

LAST = 40
"""Requests that are looked for; their answers came after SIGTERM."""


def test_the_last_requests_are_known(stack: Stack, say: Say) -> None:
    """SIGTERM under load: the last requests that were answered are in Loki and in Jaeger."""
    service = stack.serve(drain_seconds=3)
    with load(service) as working:
        until(lambda: len(working.answered) > LAST, "answers")
        service.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        assert service.process.wait(60) == 0
    after = sum(at > told for at, _, _ in working.answered)
    say(f"{after} answers came after SIGTERM, and the service ended by itself")
    assert after >= LAST
    last = working.last(LAST)
    until(lambda: without_lines(stack, last) == set(), "the last log lines in Loki")
    until(lambda: without_spans(stack, last) == set(), "the last spans in Jaeger")
    say(f"the last {LAST} are in Loki and in Jaeger")
