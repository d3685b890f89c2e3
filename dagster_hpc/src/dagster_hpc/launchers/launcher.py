"""Who starts the jobs of a run: one switch in the environment, no edit of user code."""

from __future__ import annotations

import os

from dagster_hpc.jobs import JobError, Launcher
from dagster_hpc.launchers.agent import AgentLauncher
from dagster_hpc.launchers.local import LocalLauncher
from dagster_hpc.launchers.sbatch import SbatchLauncher

SWITCH = "DAGSTER_HPC_LAUNCHER"


def launcher_of_run(run_id: str) -> Launcher:
    """Return the agent where there is one, else what DAGSTER_HPC_LAUNCHER says: local, sbatch.

    Raises JobError for any other word.
    """
    url, token = os.environ.get("HPC_AGENT_API_URL"), os.environ.get("HPC_AGENT_JOB_TOKEN")
    if url and token:
        return AgentLauncher(url, token)
    word = os.environ.get(SWITCH) or "local"
    if word == "local":
        return LocalLauncher(run_id)
    if word == "sbatch":
        return SbatchLauncher(run_id)
    raise JobError(f"{SWITCH} is {word!r}; it must be local or sbatch")
