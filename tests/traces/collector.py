"""A collector of OpenTelemetry on a real socket: takes OTLP over HTTP and keeps the spans."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

_OK = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A span as it came in; times are seconds since the epoch."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    began_at: float
    ended_at: float
    attributes: Mapping[str, str | int]
    error: str


@dataclass(slots=True)
class Collector:
    """What has come in so far, in no order; as long as it hangs, nobody gets an answer."""

    url: str = ""
    paths: set[str] = field(default_factory=set)
    spans: list[Seen] = field(default_factory=list)
    hangs: threading.Event | None = None

    def named(self, name: str) -> list[Seen]:
        """Return the spans of one name."""
        return [span for span in list(self.spans) if span.name == name]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listen as long as the block lasts."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.hangs is not None:
                collector.hangs.wait(60)
            collector.paths.add(self.path)
            collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", str(len(_OK)))
            self.end_headers()
            self.wfile.write(_OK)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        service = _values(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield _seen(str(service), span)


def _seen(service: str, span: trace_pb2.Span) -> Seen:
    has_failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    return Seen(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        began_at=span.start_time_unix_nano / 1e9,
        ended_at=span.end_time_unix_nano / 1e9,
        attributes=_values(span.attributes),
        error=span.status.message if has_failed else "",
    )


def _values(pairs: object) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for pair in pairs:  # type: ignore[attr-defined]
        assert isinstance(pair, KeyValue)
        found[pair.key] = pair.value.string_value or pair.value.int_value
    return found
