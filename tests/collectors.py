"""A collector of traces: it takes what a service sends by the protocol of real ones (OTLP)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Span:
    """A span that has arrived; ids are hexadecimal, `parent` is empty where there is none."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    failed: bool
    attributes: dict[str, str | int]
    links: list[str]
    state: str
    began: int
    ended: int

    @classmethod
    def read(cls, span: trace_pb2.Span) -> "Span":
        """Return a span as it was sent."""
        return cls(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
            dict(map(_attribute, span.attributes)),
            [link.span_id.hex() for link in span.links],
            span.trace_state,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
        )


def _attribute(pair: KeyValue) -> tuple[str, str | int]:
    kind = pair.value.WhichOneof("value")
    assert kind in {"string_value", "int_value"}, pair
    return pair.key, getattr(pair.value, kind)


class Collector:
    """Takes traces at `url`, and keeps them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []
        self.resources: list[dict[str, str | int]] = []
        self.bodies: list[bytes] = []

    def take(self, path: str, body: bytes) -> None:
        """Take what was sent."""
        assert path == "/v1/traces"
        self.bodies.append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(dict(map(_attribute, group.resource.attributes)))
            for scope in group.scope_spans:
                self.spans += map(Span.read, scope.spans)

    def named(self, name: str) -> list[Span]:
        """Return the spans of that name."""
        return [span for span in self.spans if span.name == name]

    def below(self, span: Span) -> list[str]:
        """Return the names of the spans right below one, in the order in which they began."""
        found = [each for each in self.spans if each.parent == span.id]
        return [each.name for each in sorted(found, key=lambda each: each.began)]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
