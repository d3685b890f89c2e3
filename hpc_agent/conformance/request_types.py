"""Every kind of request that an agent may get, and what makes our gateway send it."""

from __future__ import annotations

from collections.abc import Mapping

from dagster_cloud.api.dagster_cloud_api import DagsterCloudApi

from hpc_agent.control_plane.faces import agent_calls
from hpc_agent.control_plane.faces.agent_calls import AgentCall

_BY_OTHER_PARTS: Mapping[str, str] = {
    "CHECK_FOR_WORKSPACE_UPDATES": "a deploy, a reload in the UI, a location that stays outdated",
    "LAUNCH_RUN": "StartRun of the location's face",
    "TERMINATE_RUN": "CancelExecution of the location's face",
}

NOT_SENT: Mapping[str, str] = {
    "PING_LOCATION": "Dagster+ sends it while somebody looks at a location in its UI, to keep an "
    "idle code server; no call of the stock webserver on a face says that somebody looks, and a "
    "request that needs a stopped code server starts it",
    "CHECK_RUN_HEALTH": "deprecated: agents tell it in heartbeats",
    "LAUNCH_STEP": "deprecated with the cloud executor",
    "CHECK_STEP_HEALTH": "deprecated with the cloud executor",
    "TERMINATE_STEP": "deprecated with the cloud executor",
    "LOAD_REPOSITORIES": "deprecated: agents upload definitions when they have loaded them",
}


def sent() -> Mapping[str, str]:
    """Return the requests that the gateway sends, and what makes it do so."""
    calls = [each for each in vars(agent_calls).values() if isinstance(each, AgentCall)]
    return {
        **_BY_OTHER_PARTS,
        **{call.api.name: f"a gRPC call with {call.args.__name__}" for call in calls},
    }


def unexplained() -> list[str]:
    """Return the requests that we neither send nor have a reason not to."""
    return [each.name for each in DagsterCloudApi if each.name not in {*sent(), *NOT_SENT}]
