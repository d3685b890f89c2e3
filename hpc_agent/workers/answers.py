"""Answers to requests: written into the outbox once, with the request marked as answered."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlite_utils import Database

from hpc_agent.dagster_plus import responses
from hpc_agent.dagster_plus.serdes import Packed
from hpc_agent.store import inbox, outbox
from hpc_agent.store.inbox import Request


def take(db: Database, requests: Sequence[Request]) -> None:
    """Write requests down as part of a transaction.

    One that is handed out again is answered again, unless its answer still waits: what was sent did
    not arrive, whatever was said of it.
    """
    fresh = inbox.receive(db, requests)
    for request in requests:
        request_id = request.request_id
        if request in fresh or outbox.has_waiting(db, _order_key(request_id)):
            continue
        if inbox.reopen(db, request_id):
            outbox.forget(db, _idempotency_key(request_id))


def give(
    db: Database,
    request_id: str | None,
    response: Packed,
    *,
    now: float,
    started_at: float | None = None,
) -> None:
    """Answer a request as part of a transaction; a second answer to the same one is dropped."""
    if request_id is None:
        return
    request = inbox.find(db, request_id)
    if request is None or not inbox.mark_answered(db, request_id, now):
        return
    timing = responses.Timing(
        received_at=request.received_at,
        started_at=started_at or request.received_at,
        finished_at=now,
    )
    outbox.add(
        db,
        kind=outbox.RESPONSE,
        deployment=request.deployment,
        order_key=_order_key(request_id),
        idempotency_key=_idempotency_key(request_id),
        payload=json.dumps(responses.upload(request_id, request.api, response, timing)),
        now=now,
    )


def _order_key(request_id: str) -> str:
    return f"request:{request_id}"


def _idempotency_key(request_id: str) -> str:
    return f"answer:{request_id}"
