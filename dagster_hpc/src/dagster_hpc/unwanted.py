"""What an interrupt means for jobs: that they are to end, or that somebody goes on with them."""

from __future__ import annotations

import logging

from dagster import DagsterInstance, DagsterRunStatus

from dagster_hpc.jobs import Launcher

_log = logging.getLogger(__name__)


def are_unwanted(launcher: Launcher, instance: DagsterInstance, run_id: str) -> bool:
    """Whether an interrupted process is to end the jobs that it follows.

    Slurm also interrupts a run worker that it ends to begin it again, and the next one goes on with
    the same jobs. The agent ends them once the run is over, so that they may be left to it; where
    nobody looks after them, they end with the process.
    """
    if not launcher.is_looked_after:
        return True
    try:
        run = instance.get_run_by_id(run_id)
    except Exception as error:  # noqa: BLE001  (whatever it is, the agent knows the run)
        _log.info("whether run %s was asked to end is not known: %r", run_id, error)
        return False
    return run is None or run.is_finished or run.status is DagsterRunStatus.CANCELING
