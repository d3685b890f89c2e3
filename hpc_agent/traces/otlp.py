"""Spans on their way to a collector by OTLP over HTTP; the one user of OpenTelemetry.

Imported where traces are switched on only. What else there is to set, headers and certificates for
instance, are the exporter's own variables (``OTEL_EXPORTER_OTLP_*``).
"""

from __future__ import annotations

import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from hpc_agent import __version__
from hpc_agent.traces.span import Span, span_id, trace_id

_PATH = "/v1/traces"
_EXPORT_SECONDS = 5.0
_NANOSECONDS = 1e9


class OtlpTracer:
    """Sends spans in batches, from a thread of its own; what finds no collector is dropped."""

    def __init__(self, endpoint: str | None, *, service: str, instance: str) -> None:
        """Take the collector's address, without the path; None is what the environment says."""
        self._ids = _GivenIds()
        resource = Resource.create(
            {
                "service.name": service,
                "service.version": __version__,
                "service.instance.id": instance,
            }
        )
        self._provider = TracerProvider(
            resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=_address(endpoint), timeout=_EXPORT_SECONDS)
        self._exporter = exporter
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("hpc_agent", __version__)

    def add(self, span: Span) -> None:
        """Take in a span."""
        parent = None
        if span.parent is not None:
            above = SpanContext(
                trace_id(span.trace),
                span_id(span.parent),
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
            )
            parent = set_span_in_context(NonRecordingSpan(above))
        self._ids.give(trace_id(span.trace), span_id(span.key))
        made = self._tracer.start_span(
            span.name,
            context=parent,
            start_time=int(span.began_at * _NANOSECONDS),
            attributes={name: each for name, each in span.attributes.items() if each is not None},
        )
        if span.error:
            made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(int(max(span.began_at, span.ended_at) * _NANOSECONDS))

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        ends = threading.Timer(_EXPORT_SECONDS, self._exporter.shutdown)
        ends.daemon = True
        ends.start()
        self._provider.shutdown()
        ends.cancel()


class _GivenIds(IdGenerator):
    """Gives the ids out that the thread has just been given."""

    def __init__(self) -> None:
        self._given = threading.local()

    def give(self, trace: int, span: int) -> None:
        self._given.trace, self._given.span = trace, span

    def generate_trace_id(self) -> int:
        trace: int = self._given.trace
        return trace

    def generate_span_id(self) -> int:
        span: int = self._given.span
        return span


def _address(endpoint: str | None) -> str | None:
    """As with OTEL_EXPORTER_OTLP_ENDPOINT, the path of traces comes behind it."""
    return None if endpoint is None else endpoint.rstrip("/").removesuffix(_PATH) + _PATH
