"""Heartbeats of agents: presence, states of code servers, and run workers that failed."""

from __future__ import annotations

import time

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.launcher import WorkerStatus
from dagster_cloud.api.dagster_cloud_api import AgentHeartbeat
from dagster_cloud.execution.monitoring import CloudCodeServerHeartbeat, CloudRunWorkerStatus

from hpc_agent.control_plane.presence import AgentPresence
from hpc_agent.control_plane.received import received
from hpc_agent.control_plane.store.agents import Agent, Agents, CodeServer


class HeartbeatReceiver:
    """Takes in heartbeats; blocking, for worker threads."""

    def __init__(self, instance: DagsterInstance, agents: Agents, presence: AgentPresence) -> None:
        self._instance = instance
        self._agents = agents
        self._presence = presence

    def receive(
        self, deployment: str, serialized: str, *, token_id: str, serialized_errors: str
    ) -> None:
        """Store one deployment's heartbeat and act on what it says."""
        heartbeat = received(serialized, AgentHeartbeat)
        self._presence.saw_heartbeat(heartbeat.agent_id, token_id)
        # Our own clock: the agent's may be off.
        agent = Agent(
            deployment=deployment, agent_id=heartbeat.agent_id, token_id=token_id,
            label=heartbeat.agent_label, agent_type=heartbeat.agent_type,
            heartbeat_at=time.time(), heartbeat=serialized, errors=serialized_errors,
        )  # fmt: skip
        self._agents.record(agent, [_server(server) for server in heartbeat.code_server_heartbeats])
        statuses = heartbeat.run_worker_statuses
        for status in statuses.statuses if statuses else ():
            if status.status_type is WorkerStatus.FAILED:
                self._report_failed(status)

    def _report_failed(self, status: CloudRunWorkerStatus) -> None:
        # The worker may have written its last events after the agent looked: read the run now.
        run = self._instance.get_run_by_id(status.run_id)
        if run is None or run.is_finished:
            return
        message = status.message or "The run worker failed without giving a reason."
        if run.status is DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, message)
        else:
            self._instance.report_run_failed(run, message)


def _server(heartbeat: CloudCodeServerHeartbeat) -> CodeServer:
    """Take the agent's own words: ``metadata.message``, else the error, else nothing."""
    said, version = heartbeat.metadata.get("message"), heartbeat.metadata.get("version")
    message = said if isinstance(said, str) else None
    if message is None and heartbeat.error is not None:
        message = heartbeat.error.message.strip()
    return CodeServer(
        location=heartbeat.location_name, status=heartbeat.server_status.value,
        message=message or "", version=float(version) if isinstance(version, float | int) else None,
    )  # fmt: skip
