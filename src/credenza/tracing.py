"""Traces: which requests are traced, and a span for each thing that they wait for.

Must not know OpenTelemetry. `spans` does, and is imported only where traces are sent somewhere, so
that who does not trace pays for nothing: no memory, and for a request one look at its fields.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from random import getrandbits
from types import TracebackType
from typing import Final, NamedTuple, Protocol, TypeAlias

from credenza.forms import TraceSampler
from credenza.settings import Settings

TRACEPARENT: Final = re.compile(
    rb"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})"
    rb"-(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
"""W3C Trace Context §3.2; a version after 00 may have more."""

MAX_STATE: Final = 512
"""Characters of a `tracestate` that are taken along (W3C Trace Context §3.3.1.5); not more."""

SAMPLED: Final = 0x01
LOW: Final = (1 << 64) - 1
"""The part of a trace's id that decides, as OpenTelemetry's TraceIdRatioBased does it."""

Attributes: TypeAlias = Mapping[str, str | int]


class Parent(NamedTuple):
    """Whose request it is: trace and span in hexadecimal digits, and whether that is recorded."""

    trace_id: str
    span_id: str
    is_sampled: bool
    state: str
    """`tracestate`, what other systems of tracing have added; empty: nothing."""


class Span(Protocol):
    """A span that is recorded, until it ends."""

    @property
    def trace_id(self) -> str:
        """The trace it belongs to, as 32 hexadecimal digits."""

    @property
    def span_id(self) -> str:
        """Its own name, as 16 hexadecimal digits."""

    def child(self, name: str, attributes: Attributes, links: Sequence["Span"] = ()) -> "Span":
        """Begin a span below it, which is also linked to others."""

    def end(self, attributes: Attributes, error: BaseException | None = None) -> None:
        """End it; the last attributes are known only now."""

    def rename(self, name: str) -> None:
        """Give it another name."""


class Recorder(Protocol):
    """What makes spans and sends them away."""

    def begin(self, trace_id: int, parent: Parent | None) -> Span:
        """Begin the span of a request in a trace, below a parent if it has one."""

    def close(self) -> None:
        """Send what is left; it blocks, though not for ever."""


class Traced(NamedTuple):
    """A request of a trace, and its span where it is recorded here."""

    trace_id: str
    span: Span | None

    @property
    def ids(self) -> dict[str, str]:
        """What its log lines are found by."""
        own = {} if self.span is None else {"span_id": self.span.span_id}
        return {"trace_id": self.trace_id, **own}


class Tracing:
    """Decides which requests are traced."""

    def __init__(self, settings: Settings) -> None:
        self._recorder: Recorder | None = None
        if settings.otel_exporter_otlp_endpoint is not None:
            self._recorder = importlib.import_module("credenza.spans").Exporting(settings)
        self._bound = round(settings.otel_traces_sampler_arg * (LOW + 1))
        self._asks_parent = settings.otel_traces_sampler is TraceSampler.PARENT

    def begin(self, fields: Mapping[bytes, bytes]) -> Traced | None:
        """Return the trace of a request with these fields; None: it has none."""
        given, recorder = fields.get(b"traceparent"), self._recorder
        if given is None and recorder is None:
            return None
        parent = None if given is None else _parse(given, fields.get(b"tracestate", b""))
        if recorder is None:
            return None if parent is None else Traced(parent.trace_id, None)
        # 0 is no id.
        trace_id = (getrandbits(128) or 1) if parent is None else int(parent.trace_id, 16)
        if parent is not None and self._asks_parent:
            is_sampled = parent.is_sampled
        else:
            is_sampled = trace_id & LOW < self._bound
        if is_sampled:
            span = recorder.begin(trace_id, parent)
            return Traced(span.trace_id, span)
        return None if parent is None else Traced(parent.trace_id, None)

    def close(self) -> None:
        """Send what is left; it blocks, though not for ever."""
        if self._recorder is not None:
            self._recorder.close()


def _parse(value: bytes, state: bytes) -> Parent | None:
    """Return the parent that a `traceparent` names; None for one that is not valid."""
    found = TRACEPARENT.fullmatch(value)
    if found is None or (found["version"] == b"00" and found["more"] is not None):
        return None
    is_sampled = bool(int(found["flags"], 16) & SAMPLED)
    ids = found["trace"].decode(), found["span"].decode()
    return Parent(*ids, is_sampled, state.decode("latin-1") if len(state) <= MAX_STATE else "")


_current: ContextVar[Span | None] = ContextVar("span", default=None)


class Under:
    """A span while something goes on in this task; None: nothing is recorded."""

    __slots__ = ("_before", "_span")

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def __enter__(self) -> None:
        if self._span is not None:
            self._before = _current.set(self._span)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._span is not None:
            _current.reset(self._before)
            self._span.end({}, error)


NOTHING: Final = Under(None)


def within(name: str, attributes: Attributes) -> Under:
    """Record what goes on in a `with`, if the request under way is recorded."""
    span = _current.get()
    return NOTHING if span is None else Under(span.child(name, attributes))


def current() -> Span | None:
    """Return the span of what goes on in this task, if it is recorded."""
    return _current.get()


def shared(name: str, attributes: Attributes, spans: Sequence[Span]) -> Under:
    """Record what goes on for several at once: below the first one, and linked to all."""
    return Under(spans[0].child(name, attributes, spans)) if spans else NOTHING


def enter(span: Span) -> None:
    """Have what this task does from now on recorded below a span."""
    _current.set(span)
