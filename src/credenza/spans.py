"""Spans of OpenTelemetry's SDK, sent in batches by OTLP over HTTP.

Must not know what is traced. Only `tracing` imports it, and only where traces are sent somewhere.
Names of attributes are those of OpenTelemetry's semantic conventions, or begin with `credenza.`.

A span is put together once it has ended, as the SDK's `ReadableSpan`. The SDK's own `Span` can be
read and changed by others meanwhile, which takes longer than a cached read.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    format_span_id,
    format_trace_id,
)

from credenza import __version__, tracing
from credenza.settings import Settings

FLUSH_SECONDS: Final = 5.0
"""How long the end waits for a collector that does not take what is left."""

SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
SCOPE: Final = InstrumentationScope("credenza", __version__)
NO_STATUS: Final = Status()
FAILED: Final = Status(StatusCode.ERROR)

log = structlog.get_logger()


class _Told(logging.Handler):
    """Writes what the SDK says, of a collector that is away for one, as all other lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        log.warning("tracing failed", detail=record.getMessage().splitlines()[0])


class _Process(Resource):
    """The resource of all spans. The exporter hashes it for each, and the SDK's is a text then."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Exporting:
    """Sends spans to a collector; those that it does not take are lost, and nothing else is."""

    def __init__(self, settings: Settings) -> None:
        attributes = {
            "service.name": "credenza",
            "service.version": __version__,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            "deployment.environment.name": settings.environment,
        }
        self.resource: Final = _Process(dict(Resource.create(attributes).attributes))
        endpoint = f"{settings.otel_exporter_otlp_endpoint}/v1/traces"
        self._processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))
        self._ids = RandomIdGenerator()
        sdk = logging.getLogger("opentelemetry")
        sdk.handlers, sdk.propagate = [_Told(level=logging.WARNING)], False
        # It tells of each `tracestate` that is none, with all that is in it.
        logging.getLogger("opentelemetry.trace").setLevel(logging.CRITICAL)

    def begin(self, trace_id: int, parent: tracing.Parent | None) -> "Span":
        """Begin the span of a request in a trace, below a parent if it has one."""
        remote = state = None
        if parent is not None:
            if parent.state:
                state = TraceState.from_header([parent.state])
            remote = SpanContext(trace_id, int(parent.span_id, 16), True, SAMPLED, state)
        return Span(self, self.context(trace_id, state), "request", SpanKind.SERVER, remote)

    def context(self, trace_id: int, state: TraceState | None) -> SpanContext:
        """Return the ids of a new span in a trace."""
        return SpanContext(trace_id, self._ids.generate_span_id(), False, SAMPLED, state)

    def send(self, span: ReadableSpan) -> None:
        """Send a span that has ended, with others."""
        self._processor.on_end(span)

    def close(self) -> None:
        """Send what is left, as far as the collector takes it in time.

        The SDK would wait for 30 s or more; its thread ends with the process.
        """
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        ending.join(FLUSH_SECONDS)


class Span:
    """A span that is recorded; see `tracing.Span`."""

    __slots__ = (
        "_attributes",
        "_began",
        "_exporting",
        "_kind",
        "_links",
        "_name",
        "_parent",
        "context",
    )

    def __init__(
        self,
        exporting: Exporting,
        context: SpanContext,
        name: str,
        kind: SpanKind,
        parent: SpanContext | None,
        attributes: tracing.Attributes | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        self.context = context
        self._exporting = exporting
        self._name = name
        self._kind = kind
        self._parent = parent
        self._attributes = attributes
        self._links = links
        self._began = time.time_ns()

    @property
    def trace_id(self) -> str:
        """The trace it belongs to, as 32 hexadecimal digits."""
        return format_trace_id(self.context.trace_id)

    @property
    def span_id(self) -> str:
        """Its own name, as 16 hexadecimal digits."""
        return format_span_id(self.context.span_id)

    def child(
        self, name: str, attributes: tracing.Attributes, links: Sequence["Span"] = ()
    ) -> "Span":
        """Begin a span below it; of another system's work where that is among the attributes."""
        kind = SpanKind.CLIENT if "db.system.name" in attributes else SpanKind.INTERNAL
        linked = [Link(each.context) for each in links]
        own = self._exporting.context(self.context.trace_id, self.context.trace_state)
        return Span(self._exporting, own, name, kind, self.context, attributes, linked)

    def rename(self, name: str) -> None:
        """Give it another name."""
        self._name = name

    def end(self, attributes: tracing.Attributes, error: BaseException | None = None) -> None:
        """End it; of an error only the type is told, because messages hold documents."""
        told = {**(self._attributes or {}), **attributes}
        if error is not None:
            told["error.type"] = type(error).__qualname__
        span = ReadableSpan(
            self._name,
            self.context,
            self._parent,
            self._exporting.resource,
            told,
            (),
            self._links,
            self._kind,
            status=FAILED if "error.type" in told else NO_STATUS,
            start_time=self._began,
            end_time=time.time_ns(),
            instrumentation_scope=SCOPE,
        )
        self._exporting.send(span)
