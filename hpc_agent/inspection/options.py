"""Which source set which Slurm option: of a run's job as submitted, of a location as of now."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.errors import HpcAgentError, StoreError
from hpc_agent.inspection.names import worker_named
from hpc_agent.jobs import options
from hpc_agent.jobs.layers import run_layers, server_layers, settle
from hpc_agent.runs.tags import strange_tags
from hpc_agent.store import launches
from hpc_agent.store.database import read_only
from hpc_agent.store.workers import Worker, WorkerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The options of one job: rows of option, value, source and what was overridden.

    ``notes`` are about what looks like an option, and is none.
    """

    title: str
    deployment: str
    settings: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def explain(config: AgentConfig, name: str, deployment: str | None = None) -> list[Explained]:
    """Return the options of a run (run id, job id, key), else of a code location.

    Raises HpcAgentError when there is neither, ConfigError when the options are wrong.
    """
    job = _run_job(config, name)
    if job is not None:
        title = f"run {job.run_id}, attempt {job.attempt}, job {job.job_id or 'not submitted yet'}"
        settings = json.loads(job.settings) if job.settings else []
        return [
            Explained(
                title=title,
                deployment=job.deployment,
                settings=settings,
                notes=_notes(config, job),
            )
        ]
    where = deployment or next(iter(config.control_plane.deployments), "prod")
    if name not in config.locations and not _is_served(config, name):
        raise HpcAgentError(
            f"{name!r} is no run and no code location that this agent knows; give a run id, a job "
            "id or a name; `hpc-agent status` and `hpc-agent jobs --all` list them"
        )
    server = server_layers(config, deployment=where, location=name)
    run = run_layers(config, deployment=where, location=name, tags={})
    return [
        Explained(
            title=title,
            deployment=where,
            settings=options.to_rows(settle(config, layers, deployment=where)),
        )
        for title, layers in ((f"code server of {name}", server), (f"runs of {name}", run))
    ]


def _notes(config: AgentConfig, job: Worker) -> list[str]:
    db = _database(config)
    launch = launches.find(db, job.run_id or "") if db is not None else None
    return strange_tags(launch["tags"]) if launch else []


def _run_job(config: AgentConfig, name: str) -> Worker | None:
    db = _database(config)
    if db is None:
        return None
    worker = worker_named(db, name)
    return worker if worker is not None and worker.kind is WorkerKind.RUN_WORKER else None


def _is_served(config: AgentConfig, location: str) -> bool:
    db = _database(config)
    known = "SELECT 1 FROM code_servers WHERE location = ? LIMIT 1"
    return db is not None and db.execute(known, [location]).fetchone() is not None


def _database(config: AgentConfig) -> Database | None:
    """None where no agent has run yet: a location can be explained all the same."""
    try:
        return read_only(config.home)
    except StoreError:
        return None
