"""Event writes: which requests are some, which runs they name, and how they are acknowledged. Pure.

Two forms, both of ``dagster_cloud/storage/event_logs/storage.py``: a StoreEvent(Batch) mutation, or
a multipart upload whose one file is a zlib-compressed StoreEventBatchRequest in Dagster's JSON.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any

from hpc_agent.errors import UnreadableMessageError
from hpc_agent.outgoing.graphql_answer import Path
from hpc_agent.outgoing.text import storable_values
from hpc_agent.relay.documents import Call, calls

_MUTATIONS = frozenset({"StoreEvent", "StoreEventBatch"})
_MAX_UNPACKED_BYTES = 256 << 20


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


def runs_of_records(records: Any) -> list[Any]:
    """Return the run ids of EventLogEntryInput values (one or a list)."""
    if isinstance(records, dict):  # GraphQL takes one value for a list of one
        records = [records]
    if not isinstance(records, list):
        return []
    return [record.get("runId") if isinstance(record, dict) else None for record in records]


def runs_of_upload(body: bytes, content_type: str) -> list[Any]:
    """Return the run ids of a ``/store_events`` upload. Raises ValueError."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(_only_part(body, content_type), _MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise ValueError(f"not zlib data: {error}") from error
    if unpacker.unconsumed_tail:
        raise ValueError(f"more than {_MAX_UNPACKED_BYTES >> 20} MiB of events")
    request = json.loads(content)
    entries = request.get("event_log_entries") if isinstance(request, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no event_log_entries")  # noqa: TRY004  (wrong data, not a wrong call)
    return [entry.get("run_id") if isinstance(entry, dict) else None for entry in entries]


def _only_part(body: bytes, content_type: str) -> bytes:
    """Return the content of the one part of a multipart body (RFC 7578)."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise ValueError("not multipart/form-data")
    delimiter = b"--" + boundary.encode()
    start, end = body.find(delimiter), body.rfind(b"\r\n" + delimiter + b"--")
    part = body[start + len(delimiter) : end] if start == 0 and end > 0 else b""
    if b"\r\n" + delimiter in part:
        raise ValueError("more than one part")
    head, separator, content = part.partition(b"\r\n\r\n")
    if not separator or not head:
        raise ValueError("bad multipart body")
    return content
