"""The heartbeat loop: tells the control plane that the agent lives, and how its work stands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence

from sqlite_utils import Database

from hpc_agent import __version__
from hpc_agent.agent.context import Context
from hpc_agent.agent.utilization import Utilization
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.location_state import LocationState
from hpc_agent.code_servers.server_statuses import server_heartbeats, without_messages
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.client import PROTOCOL_VERSION, ControlPlaneStatusError
from hpc_agent.dagster_plus.serdes import Packed, dumps, error_info, packed
from hpc_agent.runs.worker_statuses import (
    Statuses,
    statuses_of,
    worker_statuses,
    workers_without_messages,
)
from hpc_agent.store import tracking, workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind

log = logging.getLogger(__name__)

# AGENT_HEARTBEAT_INTERVAL_SECONDS of the stock agent.
INTERVAL_SECONDS = 30.0
AGENT_TYPE = "HpcAgent"
_TOO_LARGE = 413
# A lost job is told of a few times: heartbeats are lost like anything else.
_TELL_LOST_SECONDS = 5 * INTERVAL_SECONDS
_SAY_AGAIN_SECONDS = 10 * INTERVAL_SECONDS


class HeartbeatLoop:
    """Sends one heartbeat for each deployment.

    ``spooled`` says whether events of a run wait for the control plane; ``load`` counts the
    requests that are worked on.
    """

    def __init__(
        self,
        context: Context,
        fleet: Fleet,
        *,
        spooled: Callable[[str], bool],
        load: Callable[[], int],
    ) -> None:
        self._context = context
        self._fleet = fleet
        self._load = load
        self._utilization = Utilization()
        self._workers = _Workers(spooled)

    async def step(self) -> float:
        """Send the heartbeats."""
        context = self._context
        now = context.clock()
        states = await self._fleet.states()
        workers = await context.store.run(lambda db: self._workers.look(db, now))
        metadata = await self._metadata(now)
        heartbeats = {
            deployment: self._heartbeat(deployment, now, states, workers, metadata)
            for deployment in self._fleet.deployments()
        }
        errors = context.errors.packed(now)
        try:
            await agent_calls.add_heartbeats(context.api, heartbeats, errors)
        except ControlPlaneStatusError as error:
            if error.status != _TOO_LARGE:
                raise
            await self._send_smaller(now, heartbeats, errors)
        return INTERVAL_SECONDS

    async def _send_smaller(
        self, now: float, heartbeats: dict[str, Packed], errors: Sequence[Packed]
    ) -> None:
        """A heartbeat that is too large is no reason to be taken for dead."""
        size = sum(len(dumps(heartbeat)) for heartbeat in heartbeats.values())
        words = (
            f"Request with {size} heartbeat bytes and {sum(len(dumps(e)) for e in errors)} error "
            "bytes was too large, submitting a smaller heartbeat without messages and stack traces."
        )
        log.warning("%s", words)
        smaller = {name: _without_messages(heartbeat) for name, heartbeat in heartbeats.items()}
        told = packed("TimestampedError", timestamp=now, error=error_info(words))
        await agent_calls.add_heartbeats(self._context.api, smaller, [told])

    async def _metadata(self, now: float) -> Packed:
        config = self._context.config
        metrics: Packed = {}
        if config.agent_metrics.enabled:
            metrics = await asyncio.to_thread(self._utilization.measure, now, requests=self._load())
        return {
            "version": PROTOCOL_VERSION,
            "hpc_agent_version": __version__,
            "type": AGENT_TYPE,
            "utilization_metrics": metrics,
            "allowed_full_deployment_locations": config.allowed_full_deployment_locations,
            "allowed_branch_deployment_locations": config.allowed_branch_deployment_locations or [],
        }

    def _heartbeat(
        self,
        deployment: str,
        now: float,
        states: Sequence[LocationState],
        workers: Statuses,
        metadata: Packed,
    ) -> Packed:
        queues = self._context.config.agent_queues
        return packed(
            "AgentHeartbeat",
            timestamp=now,
            agent_id=self._context.agent_id,
            agent_label=self._context.config.label,
            agent_type=AGENT_TYPE,
            errors=None,
            metadata=metadata,
            run_worker_statuses=worker_statuses(workers.get(deployment, [])),
            code_server_heartbeats=server_heartbeats(states, deployment),
            agent_queues_config=packed(
                "AgentQueuesConfig",
                include_default_queue=queues.include_default_queue,
                additional_queues=queues.additional_queues or None,
            ),
        )


class _Workers:
    """The run workers that live, and those that were lost a moment ago.

    To describe ten thousand of them takes longer than all else that an idle agent does, so what
    was said is said again as long as no job has changed, and for a few minutes at most: when
    a job is expected to start may change by itself.
    """

    def __init__(self, spooled: Callable[[str], bool]) -> None:
        self._spooled = spooled
        self._change = (-1, -1)
        self._until = 0.0
        self._statuses: Statuses = {}

    def look(self, db: Database, now: float) -> Statuses:
        """Return their statuses by deployment."""
        change = tracking.last_change(db)
        if change != self._change or now >= self._until:
            self._change, self._until = change, now + _SAY_AGAIN_SECONDS
            self._statuses = statuses_of(self._read(db, now))
        return self._statuses

    def _read(self, db: Database, now: float) -> Iterator[Worker]:
        phases = (Phase.INTENT, Phase.SUBMITTING, Phase.QUEUED, Phase.RUNNING)
        for worker in workers.each_in_phase(db, *phases):
            if worker.kind is WorkerKind.RUN_WORKER:
                yield worker
        for worker in workers.lost_since(db, now - _TELL_LOST_SECONDS):
            # What the worker managed to send may say that its run ended well.
            if not self._spooled(str(worker.run_id)):
                self._until = now
                yield worker


def _without_messages(heartbeat: Packed) -> Packed:
    """``without_messages_and_errors`` of the stock AgentHeartbeat."""
    metadata = dict(heartbeat["metadata"])
    metadata.pop("utilization_metrics", None)
    return {
        **heartbeat,
        "errors": [],
        "metadata": metadata,
        "run_worker_statuses": workers_without_messages(heartbeat["run_worker_statuses"]),
        "code_server_heartbeats": without_messages(heartbeat["code_server_heartbeats"]),
    }
