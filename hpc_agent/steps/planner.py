"""Plans further attempts of steps, from what their runs have asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpc_agent.cluster.partition_book import PartitionBook
from hpc_agent.config import AgentConfig, Retries
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.steps.launched import asked_step
from hpc_agent.steps.planning import plan_step
from hpc_agent.store.database import Store
from hpc_agent.store.workers import Worker


@dataclass(frozen=True, slots=True)
class StepPlanner:
    """See runs.attempts.Planner."""

    config: AgentConfig
    store: Store

    async def policies_of(self, worker: Worker) -> Retries | None:
        """See Planner.policies_of."""
        step = await self.store.run(lambda db: asked_step(db, worker))
        return None if step is None else step.policies(self.config.runs.retries)

    async def plan(
        self,
        worker: Worker,
        *,
        attempt: int,
        overrides: Mapping[str, str],
        partitions: PartitionBook | None = None,
    ) -> JobPlan:
        """See Planner.plan."""
        step = await self.store.run(lambda db: asked_step(db, worker))
        if step is None:
            raise ConfigError("what the run has asked for is not known any more")
        return await plan_step(
            self.store,
            self.config,
            step,
            attempt=attempt,
            overrides=overrides,
            partitions=partitions,
        )
