"""The gateway's spans: a request from entry to answer, and how long it waited for an agent."""

from __future__ import annotations

import time
from collections.abc import Iterator

from hpc_agent.control_plane.store.requests import Request, RequestState
from hpc_agent.traces.span import Span, request_key, trace_name

_FAILURE = '{"__class__": "DagsterCloudApiErrorResponse"'


def request_spans(request: Request) -> Iterator[Span]:
    """Yield the spans of a request that is settled."""
    key = request_key(request.request_id)
    trace = trace_name(request.run_id, request.request_id)
    ended_at = request.answered_at or time.time()
    yield Span(
        name=f"request {request.api}",
        trace=trace,
        key=key,
        began_at=request.created_at,
        ended_at=ended_at,
        attributes={
            "dagster.run_id": request.run_id,
            "dagster.deployment": request.deployment,
            "hpc_agent.request_id": request.request_id,
            "hpc_agent.agent_queue": request.agent_queue,
            "hpc_agent.hand_outs": request.hand_outs,
        },
        error=_error_of(request),
    )
    yield Span(
        name="wait for agent",
        trace=trace,
        key=f"{key} waits",
        parent=key,
        began_at=request.created_at,
        ended_at=request.leased_at or ended_at,
    )


def _error_of(request: Request) -> str:
    if request.state is not RequestState.ANSWERED:
        return request.state.value
    has_failed = (request.response or "").startswith(_FAILURE)
    return "the agent's answer is an error" if has_failed else ""
