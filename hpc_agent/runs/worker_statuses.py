"""How the run workers stand, as the agent's heartbeat carries it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from hpc_agent.dagster_plus.serdes import Packed, dumps, packed, packed_enum
from hpc_agent.jobs.wording import describe
from hpc_agent.runs.last_word import failure_message
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker

# RUN_WORKER_STATUS_MESSAGE_LIMIT of the stock agent.
_MESSAGE_CHARACTERS = 1000
_RUNNING = packed_enum("WorkerStatus", "RUNNING")
_FAILED = packed_enum("WorkerStatus", "FAILED")
_STATUSES = '"statuses":[]'


def status_text(worker: Worker) -> str:
    """Return the JSON of one worker's status.

    A job that waits in the queue is a healthy worker: whoever takes it for dead would fail a run
    that then executes all the same (dagster #29101).
    """
    return dumps(_status(worker))


def statuses_text(texts: Iterable[str]) -> str:
    """Return the JSON of the CloudRunWorkerStatuses that these texts make up."""
    before, after = dumps(worker_statuses([])).split(_STATUSES)
    return f'{before}"statuses":[{",".join(texts)}]{after}'


def worker_statuses(statuses: list[Packed]) -> Packed:
    """Return the CloudRunWorkerStatuses of one deployment."""
    return packed(
        "CloudRunWorkerStatuses",
        statuses=statuses,
        run_worker_monitoring_supported=True,
        run_worker_monitoring_thread_alive=True,
    )


def statuses_text_without_messages(text: str) -> str:
    """Return the same without what makes it long."""
    statuses = json.loads(text)
    return dumps(
        {**statuses, "statuses": [{**each, "message": ""} for each in statuses["statuses"]]}
    )


def _status(worker: Worker) -> Packed:
    is_lost = worker.phase is Phase.LOST
    return packed(
        "CloudRunWorkerStatus",
        run_id=worker.run_id,
        status_type=_FAILED if is_lost else _RUNNING,
        message=(failure_message(worker) if is_lost else describe(worker))[:_MESSAGE_CHARACTERS],
        # A lost job says nothing against the run: another one may do.
        transient=is_lost,
        run_worker_id=worker.job_id,
    )
