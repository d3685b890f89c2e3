"""Event writes: which requests are some, and how they are acknowledged. Pure.

Two forms, both of ``dagster_cloud/storage/event_logs/storage.py``: a StoreEvent(Batch) mutation, or
a multipart upload whose one file is a zlib-compressed StoreEventBatchRequest in Dagster's JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpc_agent.errors import UnreadableMessageError
from hpc_agent.outgoing.graphql_answer import Path
from hpc_agent.outgoing.text import storable_values
from hpc_agent.relay.documents import Call, calls

_MUTATIONS = frozenset({"StoreEvent", "StoreEventBatch"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWrite:
    """One event write, ready to be sent or spooled."""

    stream: str
    idempotency_key: str
    deployment: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def is_event_write(wanted: Sequence[Call]) -> bool:
    """Whether a document does nothing but store events."""
    return all(
        call.operation == "mutation" and call.root == "eventLogs" and call.name in _MUTATIONS
        for call in wanted
    )


def is_read(wanted: Sequence[Call]) -> bool:
    """Whether a document changes nothing, so that it may be sent again."""
    return all(call.operation == "query" for call in wanted)


def acknowledgement(wanted: Sequence[Call]) -> dict[str, Any]:
    """Return what the control plane answers to such a document."""
    data: dict[str, Any] = {}
    for call in wanted:
        group, name = call.result
        data.setdefault(group, {})[name] = {"ok": True}
    return {"data": data}


def results_of(write: EventWrite) -> list[Path]:
    """Return where the answer to a GraphQL write holds its results.

    Raises UnreadableMessageError: the write was damaged on disk.
    """
    try:
        return [call.result for call in calls(json.loads(write.body)["query"])]
    except (LookupError, TypeError, ValueError) as error:
        raise UnreadableMessageError(f"the event write cannot be read: {error!r}") from error


def storable_body(body: bytes) -> bytes:
    """Return a GraphQL request whose text any database takes.

    User code logs what it likes, names of files that are not UTF-8 among it. Half of a surrogate
    pair would be refused by the control plane for ever, and hold up all later events of its run.
    """
    if b"\\ud" not in body:  # as json.dumps spells it, pairs included
        return body
    return json.dumps(storable_values(json.loads(body))).encode()
