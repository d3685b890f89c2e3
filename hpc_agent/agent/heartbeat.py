"""The heartbeat loop: tells the control plane that the agent lives, and how its work stands."""

from __future__ import annotations

from hpc_agent import __version__
from hpc_agent.agent.context import Context
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.heartbeats import server_heartbeats
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.serdes import Packed, packed
from hpc_agent.runs.heartbeats import worker_statuses
from hpc_agent.store import jobs
from hpc_agent.store.jobs import JobKind, Phase

# AGENT_HEARTBEAT_INTERVAL_SECONDS of the stock agent.
INTERVAL_SECONDS = 30.0
AGENT_TYPE = "HpcAgent"


class HeartbeatLoop:
    """Sends one heartbeat for each deployment."""

    def __init__(self, context: Context, fleet: Fleet) -> None:
        self._context = context
        self._fleet = fleet

    async def step(self) -> float:
        """Send the heartbeats."""
        context = self._context
        now = context.clock()
        berths = await self._fleet.berths()
        live = await context.store.run(
            lambda db: jobs.in_phase(
                db, Phase.INTENT, Phase.SUBMITTING, Phase.QUEUED, Phase.RUNNING
            )
        )
        workers = [job for job in live if job.kind is JobKind.RUN_WORKER]
        heartbeats = {
            deployment: self._heartbeat(
                now,
                servers=server_heartbeats(berths, deployment),
                workers=worker_statuses(workers, deployment),
            )
            for deployment in context.config.control_plane.deployments
        }
        await agent_calls.add_heartbeats(context.api, heartbeats, context.errors.packed(now))
        return INTERVAL_SECONDS

    def _heartbeat(self, now: float, *, servers: list[Packed], workers: Packed) -> Packed:
        return packed(
            "AgentHeartbeat",
            timestamp=now,
            agent_id=self._context.agent_id,
            agent_label=self._context.config.label,
            agent_type=AGENT_TYPE,
            errors=None,
            metadata={"version": __version__, "type": AGENT_TYPE},
            run_worker_statuses=workers,
            code_server_heartbeats=servers,
            agent_queues_config=packed(
                "AgentQueuesConfig", include_default_queue=True, additional_queues=None
            ),
        )
