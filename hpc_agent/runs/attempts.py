"""The next attempt of a run whose job Slurm has ended: a new worker, where the policy wants one."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from sqlite_utils import Database

from hpc_agent.cluster.partition_book import PartitionBook
from hpc_agent.config import AgentConfig, Retries
from hpc_agent.config.pools import Pool, Slot
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import ConfigError, TemplateError
from hpc_agent.jobs import options
from hpc_agent.jobs.options_demand import Amount, Demand
from hpc_agent.jobs.preparation import JobPlan, JobPreparation
from hpc_agent.runs.planning import overrides_of, plan_attempt
from hpc_agent.runs.recovery import (
    Asked,
    NextAttempt,
    NoMore,
    cause_of,
    decide,
    policies_of,
    slurm_time,
)
from hpc_agent.store import launches, workers
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement, Worker
from hpc_agent.workers import run_log

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """A worker that goes on with a run, prepared but not yet an intent."""

    worker: Worker
    decision: NextAttempt


class Planner(Protocol):
    """Knows what workers of one kind were to do, and plans it again."""

    async def policies_of(self, worker: Worker) -> Retries | None:
        """Return what follows when Slurm ends its job, None when nothing is known of it any more.

        Raises ConfigError.
        """

    async def plan(
        self,
        worker: Worker,
        *,
        attempt: int,
        overrides: Mapping[str, str],
        partitions: PartitionBook | None = None,
    ) -> JobPlan:
        """Return the plan of an attempt. Raises ConfigError, and SchedulerError."""


@dataclass(frozen=True, slots=True)
class RunPlanner:
    """Plans attempts of runs, from what LAUNCH_RUN said."""

    config: AgentConfig
    store: Store

    async def policies_of(self, worker: Worker) -> Retries | None:
        """See Planner.policies_of."""
        run = await self._run(worker)
        return None if run is None else policies_of(self.config.runs.retries, run.tags)

    async def plan(
        self,
        worker: Worker,
        *,
        attempt: int,
        overrides: Mapping[str, str],
        partitions: PartitionBook | None = None,
    ) -> JobPlan:
        """See Planner.plan."""
        run = await self._run(worker)
        if run is None:
            raise ConfigError("how the run was launched is not known any more")
        return await plan_attempt(
            self.store,
            self.config,
            run,
            deployment=worker.deployment,
            attempt=attempt,
            overrides=overrides,
            partitions=partitions,
        )

    async def _run(self, worker: Worker) -> RunToLaunch | None:
        return await self.store.run(lambda db: launches.find(db, str(worker.run_id)))


class Attempts:
    """Prepares further attempts, and makes intents of them."""

    def __init__(
        self,
        *,
        planner: Planner,
        preparation: JobPreparation,
        partitions: PartitionBook | None,
        pools: Mapping[str, Pool],
        clock: Callable[[], float],
    ) -> None:
        self._planner = planner
        self._pools = pools
        self._preparation = preparation
        self._partitions = partitions
        self._clock = clock

    async def successor_of(self, worker: Worker) -> Successor | NoMore:
        """Decide on the next attempt and write its job directory, which may be repeated.

        NoMore has the reason for the user where the policy wanted an attempt and there is none.
        """
        if cause_of(worker) is None:
            return NoMore()
        try:
            policies = await self._planner.policies_of(worker)
            if policies is None:
                return NoMore()
            decision = await self._decide(worker, policies)
            if isinstance(decision, NoMore):
                return decision
            plan = await self._planner.plan(
                worker,
                attempt=decision.number,
                overrides=overrides_of(worker) | decision.overrides,
                partitions=self._partitions,
            )
            await self._preparation.prepare(plan)
        except (ConfigError, TemplateError) as error:
            return NoMore(reason=f"there is no further attempt: {error}")
        return Successor(worker=self._intent(worker, plan, decision), decision=decision)

    def begin(self, db: Database, ended: Worker, successor: Successor, *, now: float) -> None:
        """Make an intent of a prepared attempt, as part of a transaction, and tell the run."""
        if workers.insert(db, successor.worker):
            decision = successor.decision
            run_log.say_line(
                db,
                ended,
                f"Job {ended.job_id} ended: {ended.state.value}; "
                f"attempt {decision.number} of {decision.limit} is submitted{_more(decision)}.",
                now=now,
                metadata={
                    "attempt": decision.number,
                    "of": decision.limit,
                    **decision.overrides,
                },
            )
            log.info(
                "run %s: job %s ended %s; attempt %d of %d",
                ended.run_id,
                ended.job_id,
                ended.state.value,
                decision.number,
                decision.limit,
            )

    async def _decide(self, worker: Worker, policies: Retries) -> NextAttempt | NoMore:
        plan = await self._planner.plan(
            worker, attempt=worker.attempt, overrides=overrides_of(worker)
        )
        asked = Asked(
            options={setting.option: setting.value for setting in plan.settings},
            time_limit_seconds=_time_limit(worker),
        )
        pool = self._pools.get(worker.pool or "") if worker.placement is Placement.POOL else None
        if pool is not None:
            asked = _of_slot(asked, pool.slot, Demand(plan.settings))
        return decide(worker, policies, asked)

    def _intent(self, worker: Worker, plan: JobPlan, decision: NextAttempt) -> Worker:
        return Worker(
            key=plan.spec.key,
            kind=worker.kind,
            phase=Phase.INTENT,
            deployment=worker.deployment,
            location=worker.location,
            run_id=worker.run_id,
            job_name=worker.job_name,
            step=worker.step,
            step_attempt=worker.step_attempt,
            created_at=self._clock(),
            attempt=decision.number,
            overrides=json.dumps(overrides_of(worker) | decision.overrides),
            placement=plan.placement,
            pool=plan.pool,
            settings=options.to_json(plan.settings),
        )


def _of_slot(asked: Asked, slot: Slot, own: Demand) -> Asked:
    """Return what one in a pool had; ``own`` is what a job of its own asks for.

    Its time ended with its slot's, or with the allocation's, which the worker's job tells.
    """
    had = {name: value for name, value in asked.options.items() if name != "time"}
    if slot.seconds is not None:
        had["time"] = slurm_time(slot.seconds)
    if slot.memory_mb is not None:
        had.pop("mem-per-cpu", None)
        had["mem"] = f"{slot.memory_mb}M"
    return replace(
        asked, options=had, least_memory=_finite(own.mem), least_seconds=_finite(own.time)
    )


def _finite(amount: Callable[[], Amount | None]) -> float:
    """Return an amount, 0 where it has no number."""
    try:
        found = amount()
    except ValueError:
        return 0.0
    return found.value if found is not None and math.isfinite(found.value) else 0.0


def _time_limit(worker: Worker) -> float | None:
    """Return the limit that Slurm gave: whole minutes, from a start that it knows in seconds."""
    if worker.deadline_at is None or worker.started_at is None:
        return None
    return max(1, round((worker.deadline_at - worker.started_at) / 60)) * 60.0


def _more(decision: NextAttempt) -> str:
    changes = ", ".join(f"{each.option} {each.new} (was {each.old})" for each in decision.changes)
    return f" with {changes}" if changes else ""
