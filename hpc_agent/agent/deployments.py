"""The deployments of agent.yaml must exist: an agent that serves none looks idle for ever."""

from __future__ import annotations

from hpc_agent.config import ControlPlane
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.errors import ConfigError


class UnknownDeploymentError(ConfigError):
    """A deployment of agent.yaml does not exist; the words are the stock agent's."""


async def check_deployments(api: AgentApi, settings: ControlPlane) -> None:
    """Ask for the configured deployments.

    Raises UnknownDeploymentError when one does not exist, ControlPlaneError without an answer.
    """
    if not settings.deployments:
        return
    missing = await agent_calls.missing_deployments(api, settings.deployments)
    if missing:
        names = f"deployment{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        raise UnknownDeploymentError(
            f"Agent is configured to serve an invalid {names}. Check your agent configuration "
            "(control_plane.deployments in agent.yaml) to make sure it is serving the correct "
            "deployment."
        )
