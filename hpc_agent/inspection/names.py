"""What people call a job: a run id or its beginning, a job id, a key, a code location."""

from __future__ import annotations

import string

from sqlite_utils import Database

from hpc_agent.errors import HpcAgentError
from hpc_agent.store import selection, workers
from hpc_agent.store.workers import Worker

# Of a run id Dagster's UI shows the first eight characters.
SHORT_RUN_ID = 8
_SHORTEST_PREFIX = 4
_MOST_SHOWN = 5
_RUN_ID_CHARACTERS = frozenset(string.hexdigits + "-")


def worker_named(db: Database, name: str) -> Worker | None:
    """Return the newest worker with this name, None without one.

    Raises HpcAgentError when it is the beginning of several run ids.
    """
    worker = workers.named(db, name)
    if worker is not None or not _may_begin_a_run_id(name):
        return worker
    runs = selection.runs_that_begin_with(db, name, limit=_MOST_SHOWN + 1)
    if len(runs) > 1:
        more = " and others" if len(runs) > _MOST_SHOWN else ""
        raise HpcAgentError(
            f"{name!r} is the beginning of several run ids: {', '.join(runs[:_MOST_SHOWN])}{more}"
        )
    return workers.of_run(db, runs[0]) if runs else None


def find_worker(db: Database, name: str) -> Worker:
    """Return the newest worker with this name. Raises HpcAgentError without one, or for several."""
    worker = worker_named(db, name)
    if worker is None:
        raise HpcAgentError(
            f"no job {name!r}: give a run id or its beginning, a job id, a key or a code location; "
            "`hpc-agent jobs --all` lists them"
        )
    return worker


def _may_begin_a_run_id(name: str) -> bool:
    return len(name) >= _SHORTEST_PREFIX and _RUN_ID_CHARACTERS.issuperset(name)
