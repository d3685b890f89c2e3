"""Facts about the control plane, by one call of the agent API."""

from __future__ import annotations

from hpc_agent.config import AgentConfig, TokenSource
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.doctor.facts import ControlPlaneFacts
from hpc_agent.errors import HpcAgentError


async def gather_control_plane(config: AgentConfig) -> ControlPlaneFacts:
    """Ask which of the configured deployments exist; that shows address, trust and token too."""
    settings = config.control_plane
    try:
        async with AgentApi(settings, token=TokenSource(config), agent_id="doctor") as api:
            missing = await agent_calls.missing_deployments(api, settings.deployments)
            return ControlPlaneFacts(
                url=settings.url,
                error=None,
                missing_deployments=missing,
                clock_ahead=api.server_time(0.0),
            )
    except HpcAgentError as error:
        return ControlPlaneFacts(url=settings.url, error=str(error))
