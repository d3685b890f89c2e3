"""What a job asks, understood, and written anew for the control plane.

Whatever the scope looks at is sent as it was understood, and nothing else is: two readers of the
same bytes may find different things in them (two boundaries, two values of a name, two encodings).
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any, Self
from urllib.parse import urlencode

from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.inflate import inflate
from hpc_agent.inbound.json_text import loads_object
from hpc_agent.inbound.log_key import LogKey
from hpc_agent.inbound.names import is_file_name
from hpc_agent.relay.event_writes import storable_body
from hpc_agent.relay.identity import IDEMPOTENCY_HEADER

JSON_TYPE = "application/json"
_MOST_UNPACKED_BYTES = 128 << 20
# DefsStateStorage._get_artifact_key (dagster/_core/storage/defs_state/base.py), frozen there.
_DEFS_STATE_PREFIX = "__state__"
_LONGEST_STATE_NAME = 400  # bytes; object stores take 1,024 for the whole
_IO_TYPES = frozenset({"stdout", "stderr"})
_SIZE = re.compile(r"[0-9]{1,15}")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,70}")  # RFC 2046, section 5.1.1, without space

_PLAIN = re.compile(r"[\x20-\x7e]{0,200}")
_KEY = IDEMPOTENCY_HEADER.lower()
_PLAIN_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_PASSED_UP = {
    "dagster-cloud-metric": re.compile(r"[\x20-\x7e]{0,4000}"),
    "dagster-cloud-version": _PLAIN,
    "python-version": _PLAIN,
    "user-agent": _PLAIN,
    "x-event-write": _PLAIN,
}


def headers_of(given: Mapping[str, str], *, content_type: str | None) -> dict[str, str]:
    """Return the headers that a job's request has for the control plane; odd ones are left out."""
    headers = {"accept": JSON_TYPE, "accept-encoding": "identity"}
    if "gzip" in given.get("accept-encoding", ""):
        headers["accept-encoding"] = "gzip"
    if content_type is not None:
        headers["content-type"] = content_type
    for name, form in _PASSED_UP.items():
        value = given.get(name)
        if value is not None and form.fullmatch(value):
            headers[name] = value
    if key := given.get(_KEY):
        # Whatever it is, the same again must be the same.
        headers[_KEY] = (
            key
            if _PLAIN_KEY.fullmatch(key)
            else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        )
    return headers


@dataclass(frozen=True, slots=True)
class EventUpload:
    """A StoreEventBatchRequest in Dagster's JSON, as ``/store_events`` takes it.

    ``_store_events_http`` in dagster_cloud/storage/event_logs/storage.py.
    """

    entries: Sequence[Mapping[str, Any]]

    @classmethod
    def parse(cls, body: bytes, content_type: str) -> Self:
        """Raises InputError."""
        packed = _only_part(body, content_type)
        content = loads_object(inflate(packed, most_bytes=_MOST_UNPACKED_BYTES))
        entries = content.get("event_log_entries")
        if content.get("__class__") != "StoreEventBatchRequest" or not isinstance(entries, list):
            raise InputError("not a StoreEventBatchRequest")
        if any(not _is_entry(entry) for entry in entries):
            raise InputError("event_log_entries holds something else than EventLogEntry")
        return cls(entries)

    @property
    def runs(self) -> list[Any]:
        """The run id of each event."""
        return [entry.get("run_id") for entry in self.entries]

    def written(self) -> tuple[bytes, str]:
        """Return a multipart body (RFC 7578) and its content type."""
        content = json.dumps(
            {"__class__": "StoreEventBatchRequest", "event_log_entries": self.entries}
        )
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\n"
            'Content-Disposition: form-data; name="store_events.tmp"; '
            'filename="store_events.tmp"\r\n\r\n'
        )
        packed = zlib.compress(storable_body(content.encode()))
        body = head.encode() + packed + f"\r\n--{boundary}--\r\n".encode()
        return body, f"multipart/form-data; boundary={boundary}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsQuery:
    """The question for an address to which a compute log is uploaded.

    ``_upload_file_obj`` in dagster_cloud/storage/compute_logs/compute_log_manager.py.
    """

    key: LogKey
    io_type: str
    partial: bool
    size_bytes: int | None

    @classmethod
    def parse(cls, parameters: Sequence[tuple[str, str]]) -> Self:
        """Raises InputError; what is said beside the log key in older names must agree with it."""
        values = dict(parameters)
        key = LogKey.parse([value for name, value in parameters if name == "log_key"])
        others = [name for name, _ in parameters if name != "log_key"]
        if len(set(others)) != len(others):
            raise InputError("a parameter is given twice")
        if values.get("run_id", key.parts[0]) != key.parts[0]:
            raise InputError("run_id and log_key name two runs")
        size = values.get("size_bytes")
        if values.get("io_type") not in _IO_TYPES:
            raise InputError("io_type is stdout or stderr")
        if size is not None and not _SIZE.fullmatch(size):
            raise InputError("size_bytes is not a number of bytes")
        return cls(
            key=key,
            io_type=values["io_type"],
            partial=values.get("partial", "").lower() in {"true", "1"},
            size_bytes=None if size is None else int(size),
        )

    @property
    def path(self) -> str:
        """The path with its query."""
        parameters = [("log_key", part) for part in self.key.parts]
        parameters += [("io_type", self.io_type), ("method", "PUT")]
        parameters += [("run_id", self.key.parts[0]), ("key", self.key.parts[-1])]
        if self.size_bytes is not None:
            parameters.append(("size_bytes", str(self.size_bytes)))
        if self.partial:
            parameters.append(("partial", "True"))
        return f"/gen_logs_url?{urlencode(parameters)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateQuery:
    """The question for the address of one version of definitions' state: the only artifacts."""

    state_key: str
    version: str

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises InputError."""
        key = loads_object(body).get("key")
        parts = key.split("/") if isinstance(key, str) else []
        are_names = all(is_file_name(part, longest=_LONGEST_STATE_NAME) for part in parts)
        if len(parts) != 3 or parts[0] != _DEFS_STATE_PREFIX or not are_names:
            raise InputError(f"only artifacts {_DEFS_STATE_PREFIX}/KEY/VERSION are let through")
        return cls(state_key=parts[1], version=parts[2])

    @property
    def body(self) -> bytes:
        """The request as JSON."""
        key = f"{_DEFS_STATE_PREFIX}/{self.state_key}/{self.version}"
        return json.dumps({"key": key}).encode()


def sanitized_state_key(key: str) -> str:
    """Return the name that artifacts have for a key of definitions' state.

    ``DefsStateStorage._sanitize_key``, see above.
    """
    return re.sub(r"[^A-Za-z0-9._-]", "__", key)


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("__class__") == "EventLogEntry"
        and isinstance(entry.get("run_id"), str)
    )


def _only_part(body: bytes, content_type: str) -> bytes:
    """Return the content of the one part of a multipart body (RFC 7578). Raises InputError."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not _BOUNDARY.fullmatch(boundary):
        raise InputError("not multipart/form-data")
    delimiter = b"--" + boundary.encode()
    start, end = body.find(delimiter), body.rfind(b"\r\n" + delimiter + b"--")
    part = body[start + len(delimiter) : end] if start == 0 and end > 0 else b""
    if b"\r\n" + delimiter in part:
        raise InputError("more than one part")
    head, separator, content = part.partition(b"\r\n\r\n")
    if not separator or not head:
        raise InputError("bad multipart body")
    return content
