"""A piece of work that is over, and how all processes come to the same ids of it.

Nothing is handed on between them: ids are made of names that both sides know, the run's or the
request's. So the protocol stays as it is, and a process that was started again goes on with the
traces of the one before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

Attribute = str | int | float
_TRACE_BYTES, _SPAN_BYTES = 16, 8  # https://www.w3.org/TR/trace-context/#traceparent-header


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span; ``key`` is its own name within all traces, ``parent`` that of another one.

    Times are seconds since the epoch. ``error`` says what went wrong, if anything did.
    """

    name: str
    trace: str
    key: str
    parent: str | None = None
    began_at: float
    ended_at: float
    attributes: Mapping[str, Attribute | None] = field(default_factory=dict)
    error: str = ""


def trace_name(run_id: str | None, request_id: str) -> str:
    """Return the trace of a request: all that is about one run is one trace."""
    return f"run {run_id}" if run_id else f"request {request_id}"


def request_key(request_id: str) -> str:
    """Return the key of a request's span in the gateway."""
    return f"request {request_id}"


def serving_key(request_id: str) -> str:
    """Return the key of the work on a request in the agent."""
    return f"serving {request_id}"


def trace_id(name: str) -> int:
    """Return the id that a trace of this name has everywhere."""
    return _number(f"trace {name}", _TRACE_BYTES)


def span_id(key: str) -> int:
    """Return the id that a span of this key has everywhere."""
    return _number(f"span {key}", _SPAN_BYTES)


def _number(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:size]) or 1
