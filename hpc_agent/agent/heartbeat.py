"""The heartbeat loop: tells the control plane that the agent lives, and how its work stands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hpc_agent import __version__
from hpc_agent.agent.context import Context
from hpc_agent.agent.standings import Standings
from hpc_agent.agent.utilization import Utilization
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.location_state import LocationState
from hpc_agent.code_servers.server_statuses import server_heartbeats, without_messages
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.client import PROTOCOL_VERSION, ControlPlaneStatusError
from hpc_agent.dagster_plus.serdes import Packed, dumps, error_info, packed, with_field
from hpc_agent.runs.worker_statuses import statuses_text, statuses_text_without_messages

log = logging.getLogger(__name__)

# AGENT_HEARTBEAT_INTERVAL_SECONDS of the stock agent.
INTERVAL_SECONDS = 30.0
AGENT_TYPE = "HpcAgent"
# A lost job is told of a few times: heartbeats are lost like anything else.
_HEARTBEATS_OF_LOST = 5
_TOO_LARGE = 413
_STATUSES = "run_worker_statuses"


@dataclass(frozen=True, slots=True)
class _Heartbeat:
    """One deployment's; ``statuses`` of run workers are JSON: there may be ten thousand."""

    deployment: str
    content: Packed
    statuses: str


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
        self._failed_alone = False
        self._standings = Standings(
            context.store, spooled, tell_lost_seconds=_HEARTBEATS_OF_LOST * INTERVAL_SECONDS
        )

    async def step(self) -> float:
        """Send the heartbeats."""
        context = self._context
        now = context.clock()
        states = await self._fleet.states()
        standings = await self._standings.look(now, failed_alone=self._failed_alone)
        metadata = await self._metadata(now)
        beats = [
            _Heartbeat(
                deployment,
                self._heartbeat(deployment, now, states, metadata),
                statuses_text(standings.get(deployment, [])),
            )
            for deployment in self._fleet.deployments()
        ]
        errors = context.errors.packed(now)
        try:
            self._failed_alone = await agent_calls.add_heartbeats(
                context.api, _texts(beats), errors
            )
        except ControlPlaneStatusError as error:
            if error.status != _TOO_LARGE:
                raise
            await self._send_smaller(now, beats, errors)
        return INTERVAL_SECONDS

    async def _send_smaller(
        self, now: float, beats: Sequence[_Heartbeat], errors: Sequence[Packed]
    ) -> None:
        """A heartbeat that is too large is no reason to be taken for dead."""
        size = sum(map(len, _texts(beats).values()))
        words = (
            f"Request with {size} heartbeat bytes and {sum(len(dumps(e)) for e in errors)} error "
            "bytes was too large, submitting a smaller heartbeat without messages and stack traces."
        )
        log.warning("%s", words)
        smaller = _texts([_without_messages(each) for each in beats])
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
            code_server_heartbeats=server_heartbeats(states, deployment),
            agent_queues_config=packed(
                "AgentQueuesConfig",
                include_default_queue=queues.include_default_queue,
                additional_queues=queues.additional_queues or None,
            ),
        )


def _texts(beats: Sequence[_Heartbeat]) -> Mapping[str, str]:
    return {
        each.deployment: with_field(dumps(each.content), _STATUSES, each.statuses) for each in beats
    }


def _without_messages(heartbeat: _Heartbeat) -> _Heartbeat:
    """``without_messages_and_errors`` of the stock AgentHeartbeat."""
    content = heartbeat.content
    metadata = dict(content["metadata"])
    metadata.pop("utilization_metrics", None)
    smaller = {
        **content,
        "errors": [],
        "metadata": metadata,
        "code_server_heartbeats": without_messages(content["code_server_heartbeats"]),
    }
    statuses = statuses_text_without_messages(heartbeat.statuses)
    return _Heartbeat(heartbeat.deployment, smaller, statuses)
