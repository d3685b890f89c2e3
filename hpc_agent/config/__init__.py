"""The agent's configuration: one pydantic model for agent.yaml and the environment.

A key of agent.yaml can also be given in the environment: ``HPC_AGENT__CONTROL_PLANE__URL`` is
``control_plane.url``; the value is read as YAML. The environment wins. The token comes from
``control_plane.token_command`` or ``token_file``, else from the service's credential or from
``DAGSTER_CLOUD_AGENT_TOKEN``; it is never a key of the file.
"""

from __future__ import annotations

from hpc_agent.config.agent import AgentConfig
from hpc_agent.config.connections import AgentMetrics, AgentQueues, ControlPlane, Relay
from hpc_agent.config.environment import Conda, Container, Environment
from hpc_agent.config.instance import Artifacts, ComputeLogs, PythonLogs
from hpc_agent.config.jobs import (
    CodeServers,
    Deployment,
    Location,
    Runs,
    Scheduler,
    ServerTtl,
    Steps,
)
from hpc_agent.config.load import load_config, parse_config
from hpc_agent.config.observation import Logging, Metrics
from hpc_agent.config.policy import Bounds, Policy, Rules
from hpc_agent.config.retries import Retries, Retry, RetryWithMemory, RetryWithTime
from hpc_agent.config.section import OptionValue
from hpc_agent.config.token import TokenSource, read_token

__all__ = [
    "AgentConfig",
    "AgentMetrics",
    "AgentQueues",
    "Artifacts",
    "Bounds",
    "CodeServers",
    "ComputeLogs",
    "Conda",
    "Container",
    "ControlPlane",
    "Deployment",
    "Environment",
    "Location",
    "Logging",
    "Metrics",
    "OptionValue",
    "Policy",
    "PythonLogs",
    "Relay",
    "Retries",
    "Retry",
    "RetryWithMemory",
    "RetryWithTime",
    "Rules",
    "Runs",
    "Scheduler",
    "ServerTtl",
    "Steps",
    "TokenSource",
    "load_config",
    "parse_config",
    "read_token",
]
