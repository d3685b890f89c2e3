"""What the job directory says: ``spec.json`` and ``token``."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from .disk import DiskTrouble, patiently
from .job_files import read_regular

RUN_WORKER = "run_worker"
CODE_SERVER = "code_server"
PACK = "pack"
POOL = "pool"
STEP = "step"
DISK_SECONDS = 60.0


# Words that are paths of this node: everything else is passed on as it is.
SOCKET = "socket"
TMP = "tmp"
# How a worker comes of a template.
FORK = "fork"
SPARE = "spare"


class SpecError(Exception):
    """The job directory cannot be used; the message says which file and why."""


@dataclass(frozen=True)
class LogSettings:
    """How often compute logs are uploaded, and how much of each."""

    interval_seconds: float
    most_bytes: int


@dataclass(frozen=True)
class NodePath:
    """A word of a command that only the node knows; ``name`` is SOCKET or TMP."""

    name: str


Words = Tuple[Union[str, NodePath], ...]


@dataclass(frozen=True)
class Slot:
    """What each member of a pool has; memory in MiB, None for no limit."""

    cpus: int
    memory_mb: Optional[int]


@dataclass(frozen=True)
class TemplateSpec:
    """A process that has imported what its workers need, and how workers come of it."""

    id: str
    start: str
    python: str
    argv_prefix: Tuple[str, ...]
    code_origin: Dict[str, Any]
    environment: Dict[str, str]
    working_directory: Optional[str]
    dagster_yaml: Optional[str]


@dataclass(frozen=True)
class Spec:
    """``spec.json``; times in seconds."""

    key: str
    kind: str
    argv: Words
    environment: Dict[str, str]
    working_directory: Optional[str]
    grace_seconds: float
    resume_argv: Words
    leave_open_on: Tuple[str, ...]
    warning_seconds: Optional[float]
    parked_connections: int
    relay_timeout_seconds: float
    memory_limit_mb: Optional[int]
    nice: int
    idle_seconds: float
    compute_logs: Optional[LogSettings]
    artifacts_directory: Optional[str]
    dagster_yaml: Optional[str]
    slot: Slot
    watch_seconds: float
    template: Optional[TemplateSpec]


def read_spec(job_dir: str) -> Spec:
    """Read ``spec.json``. Raises SpecError."""
    path = os.path.join(job_dir, "spec.json")
    try:
        document = json.loads(read_text(path))
        return _parse(document)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise SpecError("%s is not a valid job specification: %r" % (path, error)) from error


def read_token(job_dir: str) -> str:
    """Read the job's token. Raises SpecError."""
    path = os.path.join(job_dir, "token")
    token = read_text(path).strip()
    if not token:
        raise SpecError("%s is empty: the job has no token" % path)
    return token


def read_text(path: str) -> str:
    """Read a file of the job directory. Raises SpecError, for a disk that is away after a while."""
    try:
        content = patiently(
            "cannot read the job directory", partial(read_regular, path), DISK_SECONDS, _sleep
        )
        return content.decode("utf-8")
    except DiskTrouble as error:
        raise SpecError("cannot read %s: %s" % (path, _words(error))) from error
    except ValueError as error:
        raise SpecError("cannot read %s: %s" % (path, error)) from error


def _words(error: DiskTrouble) -> str:
    cause = error.__cause__
    return (isinstance(cause, OSError) and cause.strerror) or str(cause or error)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def with_paths(words: Words, paths: Mapping[str, str]) -> List[str]:
    """Return a command with this node's own paths."""
    return [paths[word.name] if isinstance(word, NodePath) else word for word in words]


def _word(word: Any) -> Union[str, NodePath]:
    if not isinstance(word, dict):
        return str(word)
    if word["path"] not in (SOCKET, TMP):
        raise ValueError("unknown path %r" % word["path"])
    return NodePath(word["path"])


def _parse(document: Dict[str, Any]) -> Spec:
    if document["version"] != 2:
        raise ValueError("version %r, expected 2" % document["version"])
    if document["kind"] not in (RUN_WORKER, CODE_SERVER, PACK, POOL, STEP):
        raise ValueError("unknown kind %r" % document["kind"])
    argv = tuple(_word(word) for word in document["argv"])
    if not argv and document["kind"] not in (PACK, POOL):
        raise ValueError("argv is empty")
    return Spec(
        key=str(document["key"]),
        kind=document["kind"],
        argv=argv,
        environment={str(k): str(v) for k, v in document.get("environment", {}).items()},
        working_directory=document.get("working_directory"),
        grace_seconds=float(document.get("grace_seconds", 30)),
        resume_argv=tuple(_word(word) for word in document.get("resume_argv", ())),
        leave_open_on=tuple(str(name) for name in document.get("leave_open_on", ())),
        warning_seconds=_seconds(document.get("warning_seconds")),
        parked_connections=int(document.get("parked_connections", 2)),
        relay_timeout_seconds=float(document.get("relay_timeout_seconds", 600)),
        memory_limit_mb=document.get("memory_limit_mb"),
        nice=int(document.get("nice", 0)),
        idle_seconds=float(document.get("idle_seconds", 60)),
        compute_logs=_log_settings(document.get("compute_logs")),
        artifacts_directory=document.get("artifacts_directory"),
        dagster_yaml=document.get("dagster_yaml"),
        slot=_slot(document.get("slot") or {}),
        watch_seconds=float(document.get("watch_seconds", 0.5)),
        template=template_of(document["template"]) if document.get("template") else None,
    )


def template_of(document: Dict[str, Any]) -> TemplateSpec:
    """Read a template. Raises ValueError, KeyError, TypeError and AttributeError."""
    if document["start"] not in (FORK, SPARE):
        raise ValueError("unknown start %r" % document["start"])
    if not str(document["id"]).isalnum():
        raise ValueError("id %r" % document["id"])
    return TemplateSpec(
        id=str(document["id"]),
        start=document["start"],
        python=str(document["python"]),
        argv_prefix=tuple(str(word) for word in document["argv_prefix"]),
        code_origin=dict(document["code_origin"]),
        environment={str(k): str(v) for k, v in document.get("environment", {}).items()},
        working_directory=document.get("working_directory"),
        dagster_yaml=document.get("dagster_yaml"),
    )


def _seconds(number: Any) -> Optional[float]:
    return None if number is None else float(number)


def _slot(document: Dict[str, Any]) -> Slot:
    memory = document.get("memory_mb")
    slot = Slot(int(document.get("cpus", 1)), None if memory is None else int(memory))
    if slot.cpus < 1 or (slot.memory_mb is not None and slot.memory_mb < 1):
        raise ValueError("a slot of nothing: %r" % document)
    return slot


def _log_settings(document: Optional[Dict[str, Any]]) -> Optional[LogSettings]:
    if document is None:
        return None
    return LogSettings(float(document["interval_seconds"]), int(document["most_bytes"]))
