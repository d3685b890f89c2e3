"""Plans the jobs of runs: the first, when a run is launched, and later attempts of the same."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hpc_agent.agent.context import Context
from hpc_agent.code_servers.plan import context_variables
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.runs.plan import plan_run
from hpc_agent.store import code_servers


async def plan_attempt(
    context: Context,
    run: RunToLaunch,
    *,
    deployment: str,
    attempt: int = 1,
    overrides: Mapping[str, str] | None = None,
) -> JobPlan:
    """Return the plan of an attempt; nothing is written yet. Raises ConfigError."""
    server = await context.store.run(
        lambda db: code_servers.newest_of(db, deployment, run.location or "")
    )
    return plan_run(
        context.config,
        run,
        deployment=deployment,
        # What the run's code server was told of where it runs.
        context=context_variables(json.loads(server.deploy_data)) if server else {},
        attempt=attempt,
        overrides=overrides,
    )
