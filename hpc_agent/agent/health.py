"""The health loop: code servers whose job runs, and that do not answer, are replaced."""

from __future__ import annotations

from hpc_agent.agent.context import Context
from hpc_agent.agent.loop import Crew
from hpc_agent.code_servers.berth import Berth
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.health import Health
from hpc_agent.slurm.state import JobState
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.jobs import Phase


class HealthLoop:
    """Checks every serving code server, each in a task of its own."""

    def __init__(self, context: Context, fleet: Fleet, health: Health, crew: Crew) -> None:
        self._context = context
        self._fleet = fleet
        self._health = health
        self._crew = crew

    async def step(self) -> float:
        """Start a check of each server that should answer."""
        berths = await self._fleet.berths()
        servers = [berth.server for berth in berths if berth.server and _should_answer(berth)]
        self._health.keep({server.key for server in servers})
        for server in servers:
            self._crew.start(f"ping {server.key}", self._check(server))
        return self._health.interval_seconds

    async def _check(self, server: CodeServer) -> None:
        silent = await self._health.check(server.key)
        if silent is not None and await self._fleet.replace(
            server, f"has not answered for {silent:.0f} s"
        ):
            self._context.bells.workspace.ring()
            self._context.bells.heartbeat.ring()


def _should_answer(berth: Berth) -> bool:
    """Not one whose job Slurm has suspended or requeued: that is the scheduler's business."""
    return (
        berth.server is not None
        and berth.server.status is ServerStatus.SERVING
        and berth.job is not None
        and berth.job.phase is Phase.RUNNING
        and berth.job.state is JobState.RUNNING
    )
