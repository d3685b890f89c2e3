"""Plans the jobs of runs: the first, when a run is launched, and later attempts of the same."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping

from sqlite_utils import Database

from hpc_agent.cluster.partition_book import PartitionBook
from hpc_agent.code_servers.deploy_data import DeployData
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import NoPartitionError
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.runs.worker_plan import plan_run
from hpc_agent.slurm.partition_facts import PartitionFacts
from hpc_agent.store import code_servers
from hpc_agent.store.database import Store
from hpc_agent.store.workers import Worker

# A partition that an administrator opens for runs that fit none is seen after so long.
_LOOK_AGAIN_SECONDS = 60.0


async def plan_attempt(
    store: Store,
    config: AgentConfig,
    run: RunToLaunch,
    *,
    deployment: str,
    attempt: int = 1,
    overrides: Mapping[str, str] | None = None,
    partitions: PartitionBook | None = None,
) -> JobPlan:
    """Return the plan of an attempt; nothing is written yet.

    ``partitions`` is what one is chosen from where the options name none. Raises ConfigError, and
    SchedulerError when nothing is known of the partitions.
    """

    async def plan(facts: PartitionFacts | None) -> JobPlan:
        return await store.run(
            lambda db: plan_from(
                db,
                config,
                run,
                deployment=deployment,
                attempt=attempt,
                overrides=overrides,
                partitions=facts,
            )
        )

    return await with_facts(partitions, plan)


async def with_facts(
    partitions: PartitionBook | None,
    plan: Callable[[PartitionFacts | None], Awaitable[JobPlan]],
) -> JobPlan:
    """Return a plan made from what is known of the partitions, where one is to be chosen.

    Raises what ``plan`` does, and SchedulerError when nothing is known of them.
    """
    if partitions is None:
        return await plan(None)
    facts = await partitions.facts()
    try:
        return await plan(facts)
    except NoPartitionError:
        newer = await partitions.facts(good_for_seconds=_LOOK_AGAIN_SECONDS)
        if newer is facts:
            raise
        return await plan(newer)


def plan_from(
    db: Database,
    config: AgentConfig,
    run: RunToLaunch,
    *,
    deployment: str,
    attempt: int = 1,
    overrides: Mapping[str, str] | None = None,
    partitions: PartitionFacts | None = None,
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
        partitions=partitions,
        version=server.version if server else "",
    )


def overrides_of(worker: Worker) -> dict[str, str]:
    """Return the options in which a worker's attempt differs from the first."""
    content: dict[str, str] = json.loads(worker.overrides or "{}")
    return content
