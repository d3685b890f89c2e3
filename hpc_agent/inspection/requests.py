"""Requests of the control plane: what came in, and what has become of it."""

from __future__ import annotations

import time
from typing import Any

from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.requests import location_of, opened, run_of
from hpc_agent.errors import ControlPlaneError
from hpc_agent.store import inbox
from hpc_agent.store.database import read_only
from hpc_agent.store.inbox import Progress


def read_requests(
    config: AgentConfig,
    *,
    limit: int,
    everything: bool = False,
    since: float | None = None,
    location: str | None = None,
    run_id: str | None = None,
) -> list[dict[str, Any]]:
    """Return requests that are not answered yet, or all of the last day, the newest first.

    ``since`` is in seconds since the epoch, ``run_id`` may be the beginning of one.
    """
    db = read_only(config.home)
    found = inbox.recent(db, with_answered=everything, since=since or 0.0, limit=limit)
    return [
        row
        for row in map(_row, found)
        if (location is None or row["location"] == location)
        and (run_id is None or (row["run_id"] or "").startswith(run_id))
    ]


def _row(progress: Progress) -> dict[str, Any]:
    request = progress.request
    location, run_id = _subject(request.body)
    until = progress.answered_at or time.time()
    return {
        "request_id": request.request_id,
        "api": request.api,
        "deployment": request.deployment,
        "location": location,
        "run_id": run_id,
        "state": _state(progress),
        "received_at": request.received_at,
        "answered_at": progress.answered_at,
        "open_seconds": max(until - request.received_at, 0.0),
        "worker_key": progress.worker_key,
    }


def _state(progress: Progress) -> str:
    if progress.answered_at is not None:
        return "answered"
    return "waits for its job" if progress.worker_key else "being served"


def _subject(body: str) -> tuple[str | None, str | None]:
    """Return the code location and the run that a request is about, None where it says neither."""
    try:
        args = opened(body).args
    except ControlPlaneError:
        return None, None
    try:
        run = run_of(args)
    except ControlPlaneError:
        return location_of(args), None
    return run.location, run.run_id
