"""What the loops share: the services that the wiring made, and the bells between the loops."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hpc_agent.agent.loop import Bell
from hpc_agent.cluster.login_node import ClusterAndLoginNode
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.dagster_plus.serdes import Packed, error_info, packed
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.store.database import Store
from hpc_agent.store.jobs import Job, Placement

# AGENT_HEARTBEAT_ERROR_LIMIT and DAGSTER_CLOUD_AGENT_ERROR_SIZE_LIMIT of the stock agent.
_ERRORS_KEPT = 25
_CHARACTERS_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bells:
    """One bell for each loop that others wake."""

    serve: Bell = field(default_factory=Bell)
    submit: Bell = field(default_factory=Bell)
    watch: Bell = field(default_factory=Bell)
    cancel: Bell = field(default_factory=Bell)
    conclude: Bell = field(default_factory=Bell)
    measure: Bell = field(default_factory=Bell)
    report: Bell = field(default_factory=Bell)
    workspace: Bell = field(default_factory=Bell)
    heartbeat: Bell = field(default_factory=Bell)


class RecentErrors:
    """The agent's own errors of the last day, for its heartbeats."""

    def __init__(self) -> None:
        self._errors: deque[tuple[float, str]] = deque(maxlen=_ERRORS_KEPT)

    def add(self, now: float, message: str) -> None:
        """Keep an error."""
        self._errors.appendleft((now, message[:_CHARACTERS_KEPT]))

    def packed(self, now: float) -> list[Packed]:
        """Return them as TimestampedErrors."""
        return [
            packed("TimestampedError", timestamp=at, error=error_info(message))
            for at, message in self._errors
            if now - at < 24 * 3600
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The services of a running agent."""

    config: AgentConfig
    agent_id: str
    store: Store
    api: AgentApi
    scheduler: Scheduler
    preparation: JobPreparation
    bells: Bells
    errors: RecentErrors = field(default_factory=RecentErrors)
    clock: Callable[[], float] = time.time

    def scheduler_of(self, job: Job) -> Scheduler:
        """Return the scheduler that a job is to be submitted to, or was."""
        if job.placement is Placement.LOGIN and isinstance(self.scheduler, ClusterAndLoginNode):
            return self.scheduler.login
        return self.scheduler
