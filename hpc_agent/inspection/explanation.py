"""All about one job in one place: where it is, what it asked for, and what happened to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hpc_agent.config import AgentConfig
from hpc_agent.inspection.jobs import job_row, read_history
from hpc_agent.inspection.names import find_worker
from hpc_agent.inspection.options import explain as explain_options
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.store import workers
from hpc_agent.store.database import read_only


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One job: its row, its attempts, its options with their sources, and its states."""

    job: dict[str, Any]
    directory: str
    attempts: list[dict[str, Any]]
    options: list[dict[str, Any]]
    notes: list[str]
    history: list[dict[str, Any]]


def read_explanation(config: AgentConfig, name: str) -> Explanation:
    """Return what is known of a job. Raises HpcAgentError when there is none of this name."""
    db = read_only(config.home)
    worker = find_worker(db, name)
    is_of_run = worker.kind.is_of_run
    attempts = workers.attempts_of(db, worker) if is_of_run else []
    options = [asdict(each) for each in explain_options(config, worker.key)] if is_of_run else []
    return Explanation(
        job=job_row(worker),
        directory=str(WorkDirectory(config.work_dir).of(worker.key)),
        attempts=[job_row(each) for each in attempts],
        options=[setting for each in options for setting in each["settings"]],
        notes=[note for each in options for note in each["notes"]],
        history=read_history(config, worker.key),
    )
