"""The GraphQL calls of an agent, with their answers as values."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, ValidationError
from pydantic.alias_generators import to_camel

from hpc_agent.dagster_plus.client import AgentApi, data_of, graphql_error
from hpc_agent.dagster_plus.requests import RunToLaunch, run_of
from hpc_agent.dagster_plus.serdes import Packed, dumps, enum_member
from hpc_agent.errors import (
    ControlPlaneError,
    ControlPlaneUnavailableError,
)
from hpc_agent.inbound.json_text import loads
from hpc_agent.outgoing.graphql_answer import field_at
from hpc_agent.outgoing.text import storable

log = logging.getLogger(__name__)

_POP_REQUESTS = """
    mutation GetUserCloudRequests($forBranchDeployments: Boolean, $forFullDeployments: [String!], $limit: Int, $agentQueues: [String]) {
        userCloudAgent {
            popUserCloudAgentRequests(limit: $limit, forBranchDeployments: $forBranchDeployments, forFullDeployments: $forFullDeployments, agentQueues: $agentQueues) {
                requestId
                requestApi
                requestBody
                deploymentName
                isBranchDeployment
            }
        }
    }
"""  # noqa: E501

_WORKSPACE_ENTRIES = """
    query WorkspaceEntries($deploymentNames: [String!]!, $includeAllServerlessDeployments: Boolean!, $agentQueues: [String]) {
        deployments(deploymentNames: $deploymentNames, includeAllServerlessDeployments: $includeAllServerlessDeployments) {
            deploymentName
            isBranchDeployment
            workspaceEntries(agentQueues: $agentQueues) {
                locationName
                serializedDeploymentMetadata
                hasOutdatedData
                hasLoadError
                metadataTimestamp
            }
        }
    }
"""  # noqa: E501

_DEPLOYMENTS = """
    query Deployments($deploymentNames: [String!]!) {
        deployments(deploymentNames: $deploymentNames) {
            deploymentName
        }
    }
"""

_ADD_HEARTBEATS = """
    mutation AddAgentHeartbeats($serializedAgentHeartbeats: [AgentHeartbeatInput!], $serializedErrors: [String!]) {
        userCloudAgent {
            addAgentHeartbeats(serializedAgentHeartbeats: $serializedAgentHeartbeats, serializedErrors: $serializedErrors) {
                ok
            }
        }
    }
"""  # noqa: E501

# An agent would rather not tell every half minute that ten thousand run workers are well.
_FAILED_ALONE = "hpc-failed-workers-alone"

_RUN_BY_ID = """
    query getRunByIdQuery($runId: String!) {
        runs {
            getRunById(runId: $runId)
        }
    }
"""

_RUNS = """
    query getRunsQuery($filters: RunsFilter, $cursor: String, $limit: Int, $bucketBy: RunBucket, $ascending: Boolean) {
        runs {
            getRuns(filters: $filters, cursor: $cursor, limit: $limit, bucketBy: $bucketBy, ascending: $ascending)
        }
    }
"""  # noqa: E501

_STEP_STATS = """
    query getStepStatsForRun($runId: String!, $stepKeys: [String!]) {
        eventLogs {
            getStepStatsForRun(runId: $runId, stepKeys: $stepKeys) {
                stepKey
                attemptsList
            }
        }
    }
"""

_RUN_IDS = """
    query getRunsIdsQuery($filters: RunsFilter, $cursor: String, $limit: Int) {
        runs {
            getRunIds(filters: $filters, cursor: $cursor, limit: $limit)
        }
    }
"""

# dagster/_core/storage/dagster_run.py: FINISHED_STATUSES.
FINISHED_STATUSES = ("SUCCESS", "FAILURE", "CANCELED")

# Names of agent queues; None stands for the default one, as AgentQueuesConfig.queues has it.
Queues = Sequence[str | None]

Value = TypeVar("Value", bound=BaseModel)


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


def _is_text(value: str) -> str:
    if storable(value) != value:
        raise ValueError("is no text: it holds half of a surrogate pair")
    return value


# JSON can spell text that no database takes.
_Text = Annotated[str, AfterValidator(_is_text)]


class PoppedRequest(_Answer):
    """A request as the control plane hands it out."""

    request_id: _Text
    request_api: _Text
    request_body: _Text
    deployment_name: _Text
    is_branch_deployment: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableRequest:
    """A request that was handed out and cannot be read; ``request_id`` None cannot be answered."""

    request_id: str | None
    request_api: str
    deployment_name: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Popped:
    """What one poll brought. It is not handed out again, so that no part of it may be lost."""

    requests: list[PoppedRequest]
    unreadable: list[UnreadableRequest]

    def __bool__(self) -> bool:
        return bool(self.requests or self.unreadable)


class WorkspaceEntry(_Answer):
    """A code location as the control plane wants it."""

    location_name: _Text
    serialized_deployment_metadata: _Text
    has_outdated_data: bool = False
    has_load_error: bool = False
    metadata_timestamp: FiniteFloat


class Deployment(_Answer):
    """A deployment and its code locations."""

    deployment_name: _Text
    is_branch_deployment: bool = False
    workspace_entries: list[WorkspaceEntry] = []


class _StepStats(_Answer):
    step_key: _Text
    attempts_list: list[Any] | None = None


async def pop_requests(
    api: AgentApi,
    deployments: Sequence[str],
    *,
    branch_deployments: bool,
    queues: Queues,
    wait_seconds: float,
    anew: bool = False,
) -> Popped:
    """Take requests. What is taken and then lost is lost: write it down before anything else.

    ``anew`` asks our own control plane to hand out again at once what it has handed to this agent
    and what is not answered: the agent may never have read it. Dagster+ does not know that.
    Requests that come with an error beside them, or with one among them that cannot be read, are
    taken all the same.
    """
    content = await api.graphql_answer(
        _POP_REQUESTS,
        {
            "forBranchDeployments": branch_deployments,
            "forFullDeployments": list(deployments),
            "agentQueues": list(queues),
        },
        wait_seconds=wait_seconds,
        more_headers={"X-Hpc-Poll": "anew"} if anew else None,
    )
    try:
        items = field_at(content, ("data", "userCloudAgent", "popUserCloudAgentRequests"))
    except LookupError:
        items = None
    if content.get("errors") and not items:
        raise graphql_error(content["errors"])
    if not isinstance(items, list):
        raise ControlPlaneError("the control plane's answer holds no list of requests")
    if content.get("errors"):
        log.warning("requests came with errors beside them: %.2000s", content["errors"])
    return _popped(items)


async def workspace_entries(
    api: AgentApi, deployments: Sequence[str], *, queues: Queues
) -> list[Deployment]:
    """Return those of the deployments that exist, with their code locations."""
    data = await api.graphql(
        _WORKSPACE_ENTRIES,
        {
            "deploymentNames": list(deployments),
            "includeAllServerlessDeployments": False,
            "agentQueues": list(queues),
        },
    )
    return _validated(Deployment, _asked(data, "deployments"))


async def missing_deployments(api: AgentApi, deployments: Sequence[str]) -> list[str]:
    """Return those of the deployments that the control plane does not have."""
    data = await api.graphql(_DEPLOYMENTS, {"deploymentNames": list(deployments)})
    there = {
        deployment.deployment_name
        for deployment in _validated(Deployment, _asked(data, "deployments"))
    }
    return [name for name in deployments if name not in there]


async def add_heartbeats(
    api: AgentApi, heartbeats: Mapping[str, str], errors: Sequence[Packed]
) -> bool:
    """Send one heartbeat (JSON) for each deployment, and the agent's own recent errors.

    Return whether the next ones may tell of failed run workers alone (RFC 7240).
    """
    response = await api.send_graphql(
        _ADD_HEARTBEATS,
        {
            "serializedAgentHeartbeats": [
                {"deploymentName": name, "serializedAgentHeartbeat": heartbeat}
                for name, heartbeat in heartbeats.items()
            ],
            "serializedErrors": [dumps(error) for error in errors],
        },
        more_headers={"Prefer": _FAILED_ALONE},
    )
    data_of(response)
    return bool(response.headers.get("Preference-Applied") == _FAILED_ALONE)


async def run_status(api: AgentApi, run_id: str, *, deployment: str) -> str | None:
    """Return a run's status (``STARTED``, ``SUCCESS``, …), None when there is no such run."""
    run = await _packed_run(api, run_id, deployment=deployment)
    return None if run is None else enum_member(run.get("status"))


async def run_by_id(api: AgentApi, run_id: str, *, deployment: str) -> RunToLaunch | None:
    """Return a run as its launch would say it, None when there is no such run."""
    run = await _packed_run(api, run_id, deployment=deployment)
    return None if run is None else run_of({"pipeline_run": run})


async def _packed_run(api: AgentApi, run_id: str, *, deployment: str) -> Packed | None:
    data = await api.graphql(_RUN_BY_ID, {"runId": run_id}, deployment=deployment)
    run = _asked(data, "runs", "getRunById")
    return None if run is None else _loads(run)


async def finished_runs(
    api: AgentApi, run_ids: Sequence[str], *, deployment: str
) -> dict[str, str]:
    """Return those of these runs that are over, with their statuses."""
    return await runs_in(api, run_ids, FINISHED_STATUSES, deployment=deployment)


async def runs_in(
    api: AgentApi, run_ids: Sequence[str], statuses: Sequence[str], *, deployment: str
) -> dict[str, str]:
    """Return those of these runs that have one of these statuses, with it."""
    data = await api.graphql(
        _RUNS,
        {
            "filters": {"runIds": list(run_ids), "statuses": list(statuses)},
            "limit": len(run_ids),
        },
        deployment=deployment,
    )
    given = _asked(data, "runs", "getRuns") or []
    if not isinstance(given, list):
        raise ControlPlaneError("the control plane's answer holds no list of runs")
    runs = [_loads(run) for run in given]
    return {str(run.get("run_id")): enum_member(run.get("status")) or "" for run in runs}


async def ended_attempts(
    api: AgentApi, run_id: str, steps: Sequence[str], *, deployment: str
) -> dict[str, int]:
    """Return how many attempts of each of these steps have ended, by the events of the run.

    One that has only begun is in no ``attempts_list`` (dagster/_core/execution/stats.py).
    """
    data = await api.graphql(
        _STEP_STATS, {"runId": run_id, "stepKeys": list(steps)}, deployment=deployment
    )
    given = _asked(data, "eventLogs", "getStepStatsForRun") or []
    return {
        stats.step_key: len(stats.attempts_list or ()) for stats in _validated(_StepStats, given)
    }


async def existing_runs(api: AgentApi, run_ids: Sequence[str], *, deployment: str) -> set[str]:
    """Return those of these runs that have not been deleted."""
    data = await api.graphql(
        _RUN_IDS,
        {"filters": {"runIds": list(run_ids)}, "limit": len(run_ids)},
        deployment=deployment,
    )
    given = _asked(data, "runs", "getRunIds")
    if not isinstance(given, list):
        raise ControlPlaneError("the control plane's answer holds no list of runs' ids")
    return {str(run_id) for run_id in given}


def _loads(serialized: object) -> Packed:
    try:
        content = loads(str(serialized))
    except ValueError as error:
        raise ControlPlaneError(f"the control plane sent a run that is not JSON: {error}") from None
    return content if isinstance(content, dict) else {}


def _asked(data: Mapping[str, Any], *path: str) -> Any:
    """Return what was asked for: an answer without it does not say that there is none."""
    try:
        return field_at(data, path)
    except LookupError as error:
        raise ControlPlaneUnavailableError(
            f"the control plane's answer is no answer: {error}"
        ) from None


def _popped(items: Sequence[object]) -> Popped:
    popped = Popped([], [])
    for item in items:
        try:
            popped.requests.append(PoppedRequest.model_validate(item))
        except ValidationError as error:
            popped.unreadable.append(_unreadable(item, error))
    return popped


def _unreadable(item: object, error: ValidationError) -> UnreadableRequest:
    """Return what can be read of a request, enough to say that it cannot be carried out."""

    def text(name: str) -> str | None:
        value = item.get(name) if isinstance(item, Mapping) else None
        # An id with half of a surrogate pair in it could not be answered under the same id.
        return value if isinstance(value, str) and value and storable(value) == value else None

    faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return UnreadableRequest(
        request_id=text("requestId"),
        request_api=text("requestApi") or "",
        deployment_name=text("deploymentName"),
        reason="; ".join(faults)[:2000],
    )


def _validated(model: type[Value], content: object) -> list[Value]:
    if not isinstance(content, list):
        raise ControlPlaneError(f"the control plane's answer holds no list of {model.__name__}")
    try:
        return [model.model_validate(item) for item in content]
    except ValidationError as error:
        words = f"the control plane's answer cannot be read: {error}"
        raise ControlPlaneError(words[:2000]) from None
