"""A run of nothing, in a process of its own, to learn which modules a run imports late.

Dagster imports some where they are used first, as those of the classes that an instance names. A
template that has imported them spares each worker that.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from typing import Optional

from .descriptors import take_over

_SECONDS = 30
# Of instance_ref.py; nobody listens there.
_NOWHERE = {
    "HPC_AGENT_API_URL": "http://127.0.0.1:9",
    "HPC_AGENT_JOB_TOKEN": "none",
}


class Rehearsal:
    """One that goes on while this process imports other modules."""

    def __init__(self, dagster_yaml: Optional[str]) -> None:
        """Begin it, once dagster is imported."""
        self._reading, writing = os.pipe()
        self._home = tempfile.mkdtemp(prefix="hpc-rehearsal-")
        before = set(sys.modules)
        self._pid = os.fork()
        if self._pid == 0:
            _rehearse(self._home, dagster_yaml, writing, before)
        os.close(writing)

    def import_late_modules(self) -> None:
        """Wait for its end, and import what it did; what cannot be imported is left out."""
        with os.fdopen(self._reading, "rb") as file:
            content = file.read()
        os.waitpid(self._pid, 0)
        shutil.rmtree(self._home, ignore_errors=True)
        names = json.loads(content.decode()) if content else []
        for name in names:
            if name not in sys.modules:
                with contextlib.suppress(Exception):  # some belong to another, or to a run alone
                    importlib.import_module(name)


def _rehearse(home: str, dagster_yaml: Optional[str], writing: int, before: "set[str]") -> None:
    """Run it, write the names of the modules, and end this process."""
    try:
        signal.alarm(_SECONDS)
        null = os.open(os.devnull, os.O_WRONLY)
        take_over([null, null], [writing])
        variables = {"HPC_AGENT_COMPUTE_LOGS": home, "HPC_AGENT_ARTIFACTS": home}
        os.environ.update({**_NOWHERE, **variables, "DAGSTER_HOME": home})
        with contextlib.suppress(Exception):
            _run_nothing()
        if dagster_yaml is not None:
            with contextlib.suppress(Exception):
                _have_instance(home, dagster_yaml)
        with os.fdopen(writing, "wb") as file:
            file.write(json.dumps(sorted(set(sys.modules) - before)).encode())
    finally:
        os._exit(0)


def _run_nothing() -> None:
    dagster = importlib.import_module("dagster")

    @dagster.op  # type: ignore[untyped-decorator]
    def nothing() -> None:
        """Do nothing."""

    @dagster.job(executor_def=dagster.in_process_executor)  # type: ignore[untyped-decorator]
    def rehearsal() -> None:
        nothing()

    rehearsal.execute_in_process()


def _have_instance(home: str, dagster_yaml: str) -> None:
    """Make the instance of a run, and ask it for something: nobody answers."""
    with open(os.path.join(home, "dagster.yaml"), "w", encoding="utf-8") as file:
        file.write(dagster_yaml)
    instance = importlib.import_module("dagster").DagsterInstance.get()
    for part in ("run_storage", "event_log_storage", "schedule_storage", "compute_log_manager"):
        with contextlib.suppress(Exception):
            getattr(instance, part)
    instance.get_run_by_id("none")
