"""What must differ between two agents at the same work, and why; everything else must be equal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Change = Callable[[str, Any], Any]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TEMPORARY = re.compile(r"/tmp/[^\s\"',:)]+")


@dataclass(frozen=True, slots=True)
class Normalization:
    """One difference that is allowed: ``change`` gets a field's name and its value."""

    what: str
    why: str
    change: Change


def _ids(name: str, value: Any) -> Any:
    return _UUID.sub("ID", value) if isinstance(value, str) else value


def _times(name: str, value: Any) -> Any:
    is_time = name == "timestamp" or name.endswith(("_timestamp", "Timestamp"))
    return "TIME" if is_time and isinstance(value, float) else value


def _telemetry(name: str, value: Any) -> Any:
    return "TELEMETRY" if name == "thread_telemetry" and value is not None else value


def _temporary_paths(name: str, value: Any) -> Any:
    return _TEMPORARY.sub("/tmp/PATH", value) if isinstance(value, str) else value


def _addresses(name: str, value: Any) -> Any:
    return "ADDRESS" if name == "presigned_put_url" else value


def _agent_type(name: str, value: Any) -> Any:
    return "AGENT TYPE" if name == "agent_type" else value


def _metadata(name: str, value: Any) -> Any:
    if name != "metadata" or not isinstance(value, dict) or "version" not in value:
        return value
    ours = {"type", "hpc_agent_version"}
    return {key: content for key, content in value.items() if key not in ours}


def _server_message(name: str, value: Any) -> Any:
    if isinstance(value, dict) and value.get("__class__") == "CloudCodeServerHeartbeat":
        content = {**value, "metadata": dict(value["metadata"])}
        for ours in ("message", "version"):
            content["metadata"].pop(ours, None)
        return content
    return value


def _run_workers(name: str, value: Any) -> Any:
    return "RUN WORKERS" if name == "run_worker_statuses" else value


def _agents_own_words(name: str, value: Any) -> Any:
    if name == "error_infos" and isinstance(value, list):
        return ["ERROR" for _ in value]
    return value


def _stacks(name: str, value: Any) -> Any:
    return "STACK" if name == "stack" and isinstance(value, list) and value else value


def _tags(name: str, value: Any) -> Any:
    if name != "run tags" or not isinstance(value, list):
        return value
    own = re.compile("dagster-hpc/|process/")
    return [key for key in value if not own.match(key)]


def _entry_point(name: str, value: Any) -> Any:
    return "ENTRY POINT" if name == "entry_point" else value


def _interpreter(name: str, value: Any) -> Any:
    if name != "executable_path" or not isinstance(value, str):
        return value
    return re.sub(r"/python[0-9.]*$", "/python", value)


def _canceling(name: str, value: Any) -> Any:
    if name != "event types" or not isinstance(value, list):
        return value
    return [event_type for event_type in value if event_type != "PIPELINE_CANCELING"]


# In this order: a field is normalized from the outside in.
NORMALIZATIONS = (
    Normalization(
        "UUIDs become `ID`", "runs, requests and agents have ids of their own each time", _ids
    ),
    Normalization("fields named `…timestamp`", "they say when, not what", _times),
    Normalization(
        "`thread_telemetry`",
        "three times: when a request was taken up, begun and finished",
        _telemetry,
    ),
    Normalization(
        "paths below `/tmp`",
        "sockets and working directories are made anew for each process",
        _temporary_paths,
    ),
    Normalization(
        "`presigned_put_url`", "the control plane makes it, with a signature", _addresses
    ),
    Normalization(
        "`agent_type`",
        "`ProcessUserCodeLauncher` there, `HpcAgent` here: it is what the agents page shows",
        _agent_type,
    ),
    Normalization(
        "`metadata.type` and `metadata.hpc_agent_version` of a heartbeat",
        "ours says what it is and which release of its own; Dagster+ ignores further keys",
        _metadata,
    ),
    Normalization(
        "`metadata.message` and `metadata.version` of a code server's heartbeat",
        "ours says what the server is waiting for, and of which deploy that is said "
        "(docs/architecture.md)",
        _server_message,
    ),
    Normalization(
        "`run_worker_statuses`",
        "the stock process launcher does not watch its run workers, ours reports every job; the "
        "shape is compared in tests/agent/test_heartbeat.py",
        _run_workers,
    ),
    Normalization(
        "the errors in `error_infos`",
        "what an agent itself could not do it says in its own words, with its own traceback; "
        "errors of user code are inside the code server's answer and compared",
        _agents_own_words,
    ),
    Normalization("`stack` of an error", "line numbers and paths of the process", _stacks),
    Normalization(
        "values of run tags, and the tags `process/…` and `dagster-hpc/…`",
        "the agent's id; where the run worker is: a process id there, a Slurm job here",
        _tags,
    ),
    Normalization(
        "`entry_point` of code origins",
        "`dagster` there, `python -m dagster` here: the interpreter of the code server, whatever "
        "PATH holds on a compute node",
        _entry_point,
    ),
    Normalization(
        "the last part of `executable_path`",
        "`python3.11` there, which `dagster-cloud`'s first line names, `python` here: one program",
        _interpreter,
    ),
    Normalization(
        "`PIPELINE_CANCELING` in a run's events",
        "the stock agent writes it also when the request says that the run is CANCELING already; "
        "ours only when it is not (tests/agent/test_serve.py)",
        _canceling,
    ),
)


def normalized(value: Any) -> Any:
    """Return a message with everything replaced that must differ."""
    return _normalized("", value)


def _normalized(name: str, value: Any) -> Any:
    opened = _opened(value)
    for each in NORMALIZATIONS:
        opened = each.change(name, opened)
    if isinstance(opened, dict):
        return {key: _normalized(key, content) for key, content in opened.items()}
    if isinstance(opened, list):
        return [_normalized(name, content) for content in opened]
    return opened


def _opened(value: Any) -> Any:
    """Serialized objects inside of messages are compared as objects."""
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
