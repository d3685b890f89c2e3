"""The Dagster instance of a home: what Dagster refuses in dagster.yaml is said by file and key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterInstance
from dagster._check import CheckError
from dagster._core.errors import DagsterInvalidConfigError
from dagster._core.instance.ref import InstanceRef

from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.sqlite_storage import with_kept_files
from hpc_agent.errors import ConfigError

# Keys of dagster.yaml whose classes Dagster loads when somebody first asks for them: the webserver
# and the daemon, minutes later.
_LOADED_LATE = {
    "run_coordinator": "run_coordinator",
    "run_launcher": "run_launcher",
    "scheduler": "scheduler",
    "compute_logs": "compute_log_manager",
}
POOL_RECYCLE_SECONDS = 300
"""Firewalls forget connections that are old and quiet."""

POOL_OVERFLOW = 31
"""One connection is kept; beside it one for each thread that calls storages, see process.py."""

_TYPE = re.compile(r"<class '(?:\w+\.)*(\w+)'>")
# Behind it comes the whole schema, or an example of one, and where Dagster was in both.
_BEYOND_THE_FAULT = re.compile(
    r"( at path root[\w:\[\]]*| at the root)"
    r"|[.,;]? (Expected: \"?[{\[]|You must provide|Value (at|for)).*",
    re.DOTALL,
)


def open_instance(home: Home) -> DagsterInstance:
    """Return the instance, with all classes loaded. Raises ConfigError that names file and key."""
    with _named(home.dagster_yaml, ""):
        instance = DagsterInstance.from_ref(reference_to(home.root))
    try:
        for key, attribute in _LOADED_LATE.items():
            with _named(home.dagster_yaml, key):
                getattr(instance, attribute)
    except ConfigError:
        instance.dispose()
        raise
    return instance


def reference_to(root: Path) -> InstanceRef:
    """Return the instance of a home as all processes of the control plane open it.

    Raises what Dagster does.
    """
    return with_kept_files(InstanceRef.from_dir(str(root)))


def keep_connections(instance: DagsterInstance) -> None:
    """Let an instance of a process that serves keep its connections to PostgreSQL.

    Dagster's storages connect anew for each query otherwise, which takes longer than the query.
    """
    instance.optimize_for_webserver(
        statement_timeout=0, pool_recycle=POOL_RECYCLE_SECONDS, max_overflow=POOL_OVERFLOW
    )


@contextmanager
def _named(file: Path, key: str) -> Iterator[None]:
    """Tell what Dagster has against a part of the file: ``key``, or the whole when it is empty."""
    try:
        yield
    except DagsterInvalidConfigError as error:
        below = [key, "config"] if key else []
        faults = "; ".join(_fault(each, below) for each in error.errors or ())
        raise ConfigError(f"{file}: {faults or error}") from error
    except CheckError as error:
        words = str(error).removeprefix("Failure condition: ")
        raise ConfigError(f"{file}: {f'{key}: ' if key else ''}{words}") from error


def _fault(error: object, below: list[str]) -> str:
    """Return one fault that Dagster has found, as ``run_monitoring.enabled: …``."""
    data = getattr(error, "error_data", None)
    names = getattr(data, "field_names", None) or [getattr(data, "field_name", "")]
    place = [*below, *getattr(getattr(error, "stack", None), "levels", ())]
    key = ".".join(part for part in (*place, "/".join(names)) if part)
    if "NOT_DEFINED" in str(getattr(error, "reason", "")):
        return f"{key}: there is no such key"
    words = _BEYOND_THE_FAULT.sub("", _TYPE.sub(r"\1", str(getattr(error, "message", error))))
    return f"{key}: {words[:1].lower()}{words[1:].rstrip('. ')}" if key else words
