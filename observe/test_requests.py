"""One request, found in each place by what the place before says of it."""

import json

import yaml

from observe.conftest import Say, Stack
from observe.looking import Mark, Span, exemplars, lines_of, spans_of
from observe.processes import MONITORING
from servers import until


def found(stack: Stack, mark: Mark, say: Say) -> list[Span]:
    """Follow a request from its id to its log line, its trace and its exemplar."""
    until(lambda: len(lines_of(stack, mark)) == 1, f"one line of {mark.request_id} in Loki")
    ((labels, text),) = lines_of(stack, mark)
    line = json.loads(text)
    say(f"Loki has the line: {line['method']} {line['route']} {line['status']}")
    assert (labels["service_name"], labels["k8s_namespace_name"]) == (
        "credenza",
        "credenza-observe",
    )
    assert labels["detected_level"] == line["level"] == "info"
    assert labels["trace_id"] == line["trace_id"] == mark.trace_id
    assert labels["span_id"] == line["span_id"]
    until(lambda: bool(spans_of(stack, labels["trace_id"])), "its trace in Jaeger")
    spans = spans_of(stack, labels["trace_id"])
    say(f"Jaeger has its trace: {', '.join(span.name for span in spans)}")
    assert spans[0].id == line["span_id"]
    assert spans[0].tags["credenza.request_id"] == mark.request_id
    until(lambda: mark.trace_id in exemplars(stack), "its exemplar in Prometheus")
    say("Prometheus has its exemplar")
    assert lines_of_trace(stack, mark.trace_id) == [(labels, text)]
    return spans


def lines_of_trace(stack: Stack, trace: str) -> list[tuple[dict[str, str], str]]:
    """Return what Grafana finds in Loki for a trace, by the query of its data source."""
    (source,) = yaml.safe_load((MONITORING / "jaeger/datasource.yaml").read_text())["datasources"]
    query = source["jsonData"]["tracesToLogsV2"]["query"]
    return stack.loki.lines(query.replace("$${__trace.traceId}", trace))


def below(spans: list[Span], parent: Span) -> list[str]:
    """Return the names of the spans right below one.

    Jaeger keeps one reference between two spans: a link stands for the parent too.
    """
    return [span.name for span in spans if parent.id in {span.parent, *span.links}]


def test_a_read_is_found_by_its_id(stack: Stack, say: Say) -> None:
    """From a read's id to its log line, its trace of HTTP, Redis and SQL, and its exemplar."""
    mark = Mark.new()
    with stack.service.client() as client:
        id_ = client.post("/v1/data/found", json={"n": 1}).json()["id"]
        answer = client.get(f"/v1/data/found/{id_}", headers=mark.fields)
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, mark.request_id)
    spans = found(stack, mark, say)
    root = spans[0]
    assert root.name == "GET /v1/data/{collection}/{id}"
    assert root.tags["credenza.cache"] == "miss"
    assert below(spans, root)[-3:] == ["redis look", "group read", "redis fill"]
    group = next(span for span in spans if span.name == "group read")
    assert below(spans, group) == ["get_documents"]


def test_a_write_is_found_by_its_id(stack: Stack, say: Say) -> None:
    """From a create's id to its log line, its trace with the group it was in, and its exemplar."""
    mark = Mark.new()
    with stack.service.client() as client:
        answer = client.post("/v1/data/found", json={"n": 2}, headers=mark.fields)
    assert answer.status_code == 201
    spans = found(stack, mark, say)
    root = spans[0]
    group = next(span for span in spans if span.name == "group create")
    assert group.links == [root.id]
    assert below(spans, group)[0] == "insert_documents"
    statement = next(span for span in spans if span.name == "insert_documents")
    assert statement.tags["db.system.name"] == "postgresql"


def test_labels_are_few(stack: Stack) -> None:
    """Loki's index has service and namespace; all else is beside the line."""
    mark = Mark.new()
    with stack.service.client() as client:
        client.get("/v1/data/found", headers=mark.fields).raise_for_status()
    until(lambda: bool(lines_of(stack, mark)), "a line in Loki")
    indexed = stack.loki.ask("/loki/api/v1/labels", since="1h")["data"]
    assert set(indexed) == {"service_name", "k8s_namespace_name"}
