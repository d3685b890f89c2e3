"""Facts about the control plane, by calls of the agent API."""

from __future__ import annotations

import asyncio

from hpc_agent.config import AgentConfig, TokenSource
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.doctor.facts import ControlPlaneFacts, Unknown
from hpc_agent.errors import ControlPlaneError, HpcAgentError

# The self-hosted control plane's; Dagster+ tells agents of branch deployments by requests alone.
_BRANCH_DEPLOYMENTS = "query BranchDeployments { branchDeployments { deploymentName } }"


async def gather_control_plane(config: AgentConfig) -> ControlPlaneFacts:
    """Ask which of the configured deployments exist; that shows address, trust and token too."""
    settings = config.control_plane
    try:
        token = await asyncio.to_thread(TokenSource, config)
        async with AgentApi(settings, token=token, agent_id="doctor") as api:
            missing = await agent_calls.missing_deployments(api, settings.deployments)
            return ControlPlaneFacts(
                url=settings.url,
                error=None,
                missing_deployments=missing,
                branch_deployments=await _branch_deployments(api),
                clock_ahead=api.server_time(0.0),
            )
    except HpcAgentError as error:
        return ControlPlaneFacts(url=settings.url, error=str(error))


async def _branch_deployments(api: AgentApi) -> int | Unknown:
    """Return how many branch deployments there are."""
    try:
        data = await api.graphql(_BRANCH_DEPLOYMENTS, {})
    except ControlPlaneError as error:
        return Unknown(f"the control plane does not say which branch deployments it has: {error}")
    found = data.get("branchDeployments") or []
    return len(found) if isinstance(found, list) else Unknown("the answer holds no list of them")
