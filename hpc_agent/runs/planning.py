"""Plans the jobs of runs: the first, when a run is launched, and later attempts of the same."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlite_utils import Database

from hpc_agent.code_servers.deploy_data import DeployData
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.runs.worker_plan import plan_run
from hpc_agent.store import code_servers
from hpc_agent.store.database import Store
from hpc_agent.store.workers import Worker


async def plan_attempt(
    store: Store,
    config: AgentConfig,
    run: RunToLaunch,
    *,
    deployment: str,
    attempt: int = 1,
    overrides: Mapping[str, str] | None = None,
) -> JobPlan:
    """Return the plan of an attempt; nothing is written yet. Raises ConfigError."""
    return await store.run(
        lambda db: plan_from(
            db, config, run, deployment=deployment, attempt=attempt, overrides=overrides
        )
    )


def plan_from(
    db: Database,
    config: AgentConfig,
    run: RunToLaunch,
    *,
    deployment: str,
    attempt: int = 1,
    overrides: Mapping[str, str] | None = None,
) -> JobPlan:
    """Return the plan of an attempt, as what the run's code location was deployed."""
    server = code_servers.newest_of(db, deployment, run.location or "")
    return plan_run(
        config,
        run,
        deployment=deployment,
        deployed=DeployData.parse(server.deploy_data) if server else DeployData(),
        attempt=attempt,
        overrides=overrides,
    )


def overrides_of(worker: Worker) -> dict[str, str]:
    """Return the options in which a worker's attempt differs from the first."""
    content: dict[str, str] = json.loads(worker.overrides or "{}")
    return content
