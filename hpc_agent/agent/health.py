"""The health loop: code servers whose job runs, and that do not answer, are replaced."""

from __future__ import annotations

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.code_servers.health import Health
from hpc_agent.code_servers.life import ServerLife
from hpc_agent.slurm.state import JobState
from hpc_agent.store import code_servers, workers
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker


class HealthLoop:
    """Checks every serving code server, each in a task of its own."""

    def __init__(self, context: Context, life: ServerLife, health: Health) -> None:
        self._context = context
        self._life = life
        self._health = health

    async def step(self) -> float:
        """Start a check of each server that should answer, also where a successor is starting."""
        servers = await self._context.store.run(_that_should_answer)
        self._health.keep({server.key for server in servers})
        for server in servers:
            self._context.tasks.start(f"ping {server.key}", self._check(server), server.log_fields)
        return self._health.interval_seconds

    async def _check(self, server: CodeServer) -> None:
        silent = await self._health.check(server.key)
        if silent is not None:
            await self._life.replace(server, f"has not answered for {silent:.0f} s")


def _that_should_answer(db: Database) -> list[CodeServer]:
    """Not those whose job Slurm has suspended or requeued: that is the scheduler's business."""
    return [
        server
        for server in code_servers.not_retired(db)
        if server.status is ServerStatus.SERVING and _is_running(workers.get(db, server.key))
    ]


def _is_running(worker: Worker) -> bool:
    return worker.phase is Phase.RUNNING and worker.state is JobState.RUNNING
