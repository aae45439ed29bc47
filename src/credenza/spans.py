"""Spans as OpenTelemetry's SDK makes them, sent in batches by OTLP over HTTP.

Must not know what is traced. Only `tracing` imports it, and only where traces are sent somewhere.
Names of attributes are those of OpenTelemetry's semantic conventions, or begin with `credenza.`.
"""

import logging
import socket
from collections.abc import Sequence
from typing import Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace import Span as OpenTelemetrySpan

from credenza import __version__, tracing
from credenza.settings import Settings

FLUSH_SECONDS: Final = 5.0
SERVER_ERRORS: Final = 500

log = structlog.get_logger()


class _Told(logging.Handler):
    """Writes what the SDK says, of a collector that is away for one, as all other lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        log.warning("tracing failed", detail=record.getMessage().splitlines()[0])


class Exporting:
    """Sends spans to a collector; those that it does not take are lost, and nothing else is."""

    def __init__(self, settings: Settings) -> None:
        resource = Resource.create(
            {
                "service.name": "credenza",
                "service.version": __version__,
                "service.instance.id": socket.gethostname(),
                "deployment.environment.name": settings.environment,
            }
        )
        endpoint = f"{settings.otel_exporter_otlp_endpoint}/v1/traces"
        # Which requests are recorded was decided before a span begins.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("credenza", __version__)
        sdk = logging.getLogger("opentelemetry")
        sdk.handlers, sdk.propagate = [_Told(level=logging.WARNING)], False

    def begin(self, parent: tracing.Parent | None) -> "Span":
        """Begin the span of a request."""
        context = Context()
        if parent is not None:
            remote = SpanContext(
                int(parent.trace_id, 16),
                int(parent.span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
            )
            context = set_span_in_context(NonRecordingSpan(remote), context)
        return Span(self._tracer, self._tracer.start_span("request", context, SpanKind.SERVER))

    def close(self) -> None:
        """Send what is left, as far as the collector takes it in time."""
        self._provider.force_flush(int(FLUSH_SECONDS * 1000))
        self._provider.shutdown()


class Span:
    """A span that is recorded; see `tracing.Span`."""

    def __init__(self, tracer: Tracer, span: OpenTelemetrySpan) -> None:
        self._tracer = tracer
        self._span = span
        self.context = span.get_span_context()

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
        context = set_span_in_context(self._span, Context())
        linked = [Link(each.context) for each in links]
        span = self._tracer.start_span(name, context, kind, dict(attributes), linked)
        return Span(self._tracer, span)

    def rename(self, name: str) -> None:
        """Give it another name."""
        self._span.update_name(name)

    def end(self, attributes: tracing.Attributes, error: BaseException | None = None) -> None:
        """End it; of an error only the type is told, because messages hold documents."""
        self._span.set_attributes(attributes)
        status = attributes.get("http.response.status_code", 0)
        if error is not None:
            self._span.set_attribute("error.type", type(error).__qualname__)
        if error is not None or int(status) >= SERVER_ERRORS:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
