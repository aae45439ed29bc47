"""Loki and Jaeger are away: nobody notices, and what was written meanwhile is there afterwards."""

import statistics
import time

from observe.conftest import Say, Stack
from observe.looking import Mark, load, without_lines, without_spans
from observe.processes import Collector
from servers import until
from service import Running

REQUESTS = 200
KILLS = 6
SLOWER, MARGIN = 2.0, 0.005
"""By how much the median may rise on a busy machine: a factor, and seconds. Who waits for a store
that is away waits for seconds."""


def work(service: Running) -> tuple[list[Mark], list[float]]:
    """Send some requests; return them, and the seconds that each took."""
    marks, took = [], []
    with service.client() as client:
        for number in range(REQUESTS):
            mark = Mark.new()
            began = time.monotonic()
            answer = client.put(f"/v1/data/away/{number}", json=number, headers=mark.fields)
            took.append(time.monotonic() - began)
            assert answer.status_code in {200, 201}
            marks.append(mark)
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/health/ready").status_code == 200
    return marks, took


def waits(collector: Collector) -> bool:
    """Return whether something waits, by what a collector tells of itself."""
    return collector.metric("otelcol_exporter_queue_size") > 0


def test_nothing_is_lost_while_they_are_away(stack: Stack, say: Say) -> None:
    """Loki and Jaeger stop, collectors are killed: the service is as fast, and nothing is lost."""
    _, before = work(stack.service)
    stack.loki.stop()
    stack.jaeger.stop()
    say("Loki and Jaeger have stopped")
    marks, during = work(stack.service)
    medians = [statistics.median(each) * 1000 for each in (before, during)]
    say(f"a write took {medians[0]:.1f} ms before and takes {medians[1]:.1f} ms now (medians)")
    assert medians[1] < medians[0] * SLOWER + MARGIN * 1000
    assert max(during) < 1
    for collector in (stack.logs, stack.traces):
        until(lambda: waits(collector), "a queue that its metrics tell of")  # noqa: B023
        until(lambda: "Exporting failed" in collector.log(), "an attempt")  # noqa: B023
        collector.kill()
        collector.start()
    say("both collectors have tried, were killed, and are started again")
    stack.loki.start()
    stack.jaeger.start()
    say("Loki and Jaeger are started again")
    until(lambda: without_lines(stack, marks) == set(), "all lines in Loki")
    say("all lines are in Loki")
    until(lambda: without_spans(stack, marks) == set(), "all spans in Jaeger")
    say("all spans are in Jaeger")


def test_a_killed_collector_loses_no_line(stack: Stack, say: Say) -> None:
    """A node's collector is killed again and again while it reads: no line is missing."""
    with load(stack.service, clients=2) as working:
        for _ in range(KILLS):
            time.sleep(0.5)
            stack.logs.kill()
            stack.logs.start()
    marks = [mark for _, mark, _ in working.answered]
    until(lambda: without_lines(stack, marks) == set(), "all lines in Loki")
    say(f"killed {KILLS} times amid {len(marks)} lines, and all are in Loki")
