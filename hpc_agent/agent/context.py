"""What the loops share: the services that the wiring made, and the bells between the loops."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hpc_agent.agent.bells import Bells
from hpc_agent.agent.tasks import Tasks
from hpc_agent.agent.troubles import Troubles
from hpc_agent.clock import SteadyClock
from hpc_agent.cluster.login_node import ClusterAndLoginNode
from hpc_agent.cluster.partition_book import PartitionBook
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.dagster_plus.serdes import Packed, error_info, packed
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.metrics.meter import SILENT, Meter
from hpc_agent.runs.attempts import Planner, RunPlanner
from hpc_agent.runs.termination import Termination
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.steps.ending import StepEnding
from hpc_agent.steps.planner import StepPlanner
from hpc_agent.store.database import Store
from hpc_agent.store.draining import Drain
from hpc_agent.store.workers import Placement, Worker, WorkerKind
from hpc_agent.traces.tracer import SILENT as UNTRACED
from hpc_agent.traces.tracer import Tracer
from hpc_agent.workers.changes import Changes

# AGENT_HEARTBEAT_ERROR_LIMIT and DAGSTER_CLOUD_AGENT_ERROR_SIZE_LIMIT of the stock agent.
_ERRORS_KEPT = 25
_CHARACTERS_KEPT = 10_000


class RecentErrors:
    """The agent's own errors of the last day, for its heartbeats."""

    def __init__(self) -> None:
        self._errors: deque[tuple[float, str]] = deque(maxlen=_ERRORS_KEPT)

    def add(self, now: float, message: str) -> None:
        """Keep an error."""
        self._errors.appendleft((now, message[:_CHARACTERS_KEPT]))

    def rows(self, limit: int) -> list[dict[str, float | str]]:
        """Return the newest of them."""
        return [{"at": at, "message": message} for at, message in list(self._errors)[:limit]]

    def packed(self, now: float) -> list[Packed]:
        """Return them as TimestampedErrors."""
        return [
            packed("TimestampedError", timestamp=at, error=error_info(message))
            for at, message in self._errors
            if now - at < 24 * 3600
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The services of a running agent.

    ``clock`` measures waits and never steps; ``wall`` tells the time of day. ``partitions`` is None
    where none is chosen for runs. ``tasks`` go on beside the loops. ``stop`` ends the agent.
    """

    config: AgentConfig
    agent_id: str
    store: Store
    api: AgentApi
    scheduler: Scheduler
    preparation: JobPreparation
    changes: Changes
    bells: Bells
    meter: Meter = SILENT
    tracer: Tracer = UNTRACED
    partitions: PartitionBook | None = None
    errors: RecentErrors = field(default_factory=RecentErrors)
    troubles: Troubles = field(default_factory=Troubles)
    clock: SteadyClock = field(default_factory=SteadyClock)
    wall: Callable[[], float] = time.time
    tasks: Tasks = field(default_factory=Tasks)
    drain: Drain = field(default_factory=Drain)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def termination(self) -> Termination:
        """How run workers are asked to end."""
        return Termination(
            config=self.config,
            store=self.store,
            scheduler=self.scheduler,
            changes=self.changes,
            clock=self.clock,
            wall=self.wall,
        )

    @property
    def planners(self) -> Mapping[WorkerKind, Planner]:
        """What knows the work of runs and of their steps, and plans it again."""
        return {
            WorkerKind.RUN_WORKER: RunPlanner(self.config, self.store),
            WorkerKind.STEP: StepPlanner(self.config, self.store),
        }

    @property
    def step_ending(self) -> StepEnding:
        """How the jobs of steps are asked to end."""
        return StepEnding(
            config=self.config,
            store=self.store,
            scheduler=self.scheduler,
            changes=self.changes,
            clock=self.clock,
            start=self.tasks.start,
        )

    def scheduler_of(self, worker: Worker) -> Scheduler:
        """Return the scheduler that a worker is to be submitted to, or was."""
        if worker.placement is Placement.LOGIN and isinstance(self.scheduler, ClusterAndLoginNode):
            return self.scheduler.login
        return self.scheduler
