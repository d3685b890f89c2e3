"""Requests to a listener, measured: by operation and status, with the bytes of both bodies."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpc_agent.metrics.meter import Meter
from hpc_agent.metrics.metric import Metric

_OPERATION = "hpc_agent.operation"
UNKNOWN = "unknown"
_ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpMetrics:
    """Where a listener counts: ``requests`` by operation and status, bytes by operation."""

    requests: Metric
    received: Metric
    sent: Metric


def name_operation(scope: Scope, name: str) -> None:
    """Say what a request asks for more exactly than its path does.

    ``name`` must be one of a known set: anything else would be a label without bounds.
    """
    scope[_OPERATION] = name


class Measured:
    """Middleware of a Starlette application, around everything else.

    The operation is what ``name_operation`` said, else the route whose path it is, also where
    somebody was refused before: whatever else callers invent is one operation.
    """

    def __init__(self, app: ASGIApp, meter: Meter, metrics: HttpMetrics) -> None:
        self._app = app
        self._meter = meter
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request and count it, also one whose peer went away."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange()

        async def receive_counted() -> Message:
            message = await receive()
            exchange.received += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            exchange.note(message)
            if exchange.is_complete:  # how fast its peer reads the rest is not ours
                self._tell(scope, exchange)
            await send(message)

        try:
            await self._app(scope, receive_counted, send_counted)
        finally:
            if not exchange.is_complete:
                self._tell(scope, exchange)

    def _tell(self, scope: Scope, exchange: _Exchange) -> None:
        operation = scope.get(_OPERATION) or _route(scope)
        metrics, took = self._metrics, time.perf_counter() - exchange.began
        self._meter.observe(metrics.requests, took, operation, exchange.status)
        self._meter.count(metrics.received, operation, amount=exchange.received)
        self._meter.count(metrics.sent, operation, amount=exchange.sent)


@dataclass(slots=True)
class _Exchange:
    """A request and as much of its answer as there is."""

    began: float = field(default_factory=time.perf_counter)
    status: str = _ABANDONED
    received: int = 0
    sent: int = 0
    is_complete: bool = False

    def note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = str(message["status"])
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)


def _route(scope: Scope) -> str:
    """Return the path of the route without what varies in it."""
    path: str = scope["path"]
    for route in scope["app"].routes:
        fixed, brace, _ = route.path.partition("{")
        if path.startswith(fixed) if brace else path == fixed:
            return str(fixed.strip("/"))
    return UNKNOWN
