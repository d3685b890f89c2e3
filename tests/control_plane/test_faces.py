"""Faces answer Dagster's own gRPC client as a code server would."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import dagster as dg
import pytest_asyncio
import sqlalchemy as sa
from dagster._core.remote_origin import RegisteredCodeLocationOrigin
from dagster._core.remote_representation.external_data import (
    JobDataSnap,
    PartitionExecutionErrorSnap,
    PartitionNamesSnap,
    RepositorySnap,
)
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import (
    CancelExecutionRequest,
    CancelExecutionResult,
    ExecuteExternalJobArgs,
    ListRepositoriesResponse,
    PartitionNamesArgs,
    StartRunResult,
)
from dagster_cloud.api.dagster_cloud_api import (
    DagsterCloudApi,
    DagsterCloudApiErrorResponse,
    DagsterCloudApiGrpcResponse,
    DagsterCloudApiRequest,
    DagsterCloudApiSuccess,
    DagsterCloudCodeLocationUpdateResult,
)
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import deserialize_value, serialize_value

from hpc_agent.control_plane.faces.agent_calls import PARTITION_NAMES, AgentCaller
from hpc_agent.control_plane.gateway import Gateway
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.request_queue import Ask
from hpc_agent.control_plane.store.agents import Agent, CodeServer
from hpc_agent.control_plane.store.requests import Request, Serves
from hpc_agent.control_plane.store.schema import requests
from tests.control_plane.conftest import AgentApi, on_both_databases
from tests.control_plane.definitions import (
    deploy,
    new_run,
    repository_origin,
    update,
    upload,
    upload_location,
)

pytestmark = on_both_databases


class Face:
    """The client side of a face, its blocking calls in threads."""

    def __init__(self, socket: str) -> None:
        self._client = DagsterGrpcClient(socket=socket)

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(self._client, name), *args, **kwargs)

    async def repositories(self) -> ListRepositoriesResponse | SerializableErrorInfo:
        answer = await self.call("list_repositories")
        return deserialize_value(answer, (ListRepositoriesResponse, SerializableErrorInfo))


@pytest_asyncio.fixture
async def face(gateway: Gateway, home: Home) -> AsyncIterator[Face]:
    """The face of a deployed location that no agent has seen."""
    await asyncio.to_thread(deploy, gateway.services.locations)
    await gateway.refresh()
    yield Face(str(home.socket("here")))


@pytest_asyncio.fixture
async def loaded(gateway: Gateway, api: AgentApi, face: Face) -> Face:
    """The face of a location whose definitions have been uploaded."""
    await upload_location(api.client)
    await gateway.refresh()
    return face


async def take_request(gateway: Gateway) -> Request:
    """Pop the next request as an agent does."""
    gateway.services.presence.saw_poll("agent:one")
    async with asyncio.timeout(30):
        while True:
            popped = await asyncio.to_thread(
                gateway.services.requests.pop,
                owner="agent:one", serves=Serves(deployments=["prod"]), limit=1,
            )  # fmt: skip
            if popped and popped[0].api != "CHECK_FOR_WORKSPACE_UPDATES":
                return popped[0]
            await asyncio.sleep(0.01)


async def test_face_without_definitions_tells_the_agents_words(
    gateway: Gateway, face: Face
) -> None:
    """What the agent says of a pending code server is what the UI shows, and it reloads for it."""
    before = await face.call("get_server_id")
    message = "code server is job 4711, PENDING (Priority), expected to start 14:03"
    await asyncio.to_thread(tell, gateway, message, at=1.0)
    await gateway.refresh()

    error = await face.repositories()

    assert isinstance(error, SerializableErrorInfo)
    assert message in error.message
    assert await face.call("get_server_id") != before


async def test_definitions_come_from_the_snapshot(loaded: Face) -> None:
    """Repositories and jobs are answered without any agent."""
    listed = await loaded.repositories()
    assert isinstance(listed, ListRepositoriesResponse)
    assert [symbol.repository_name for symbol in listed.repository_symbols] == ["__repository__"]
    assert listed.container_image == "image:1"

    deferred = await loaded.call("external_repository", repository_origin(), defer_snapshots=True)
    complete = await loaded.call("external_repository", repository_origin(), defer_snapshots=False)
    job = await loaded.call("external_job", repository_origin(), "work")

    assert deserialize_value(deferred, RepositorySnap).job_datas is None
    datas = deserialize_value(complete, RepositorySnap).job_datas
    assert datas is not None
    assert [data.name for data in datas] == ["work"]
    assert deserialize_value(job.serialized_job_data, JobDataSnap).job.name == "work"


async def test_jobs_are_asked_for_once(gateway: Gateway, api: AgentApi, face: Face) -> None:
    """The first update names the missing job snapshots, the second one takes effect."""
    first, second = await upload_location(api.client)

    assert not first.updated
    assert [job.job_name for job in first.missing_job_snapshots or ()] == ["work"]
    assert second.updated
    again, _ = await upload_location(api.client)
    assert again.updated


async def test_load_error_hides_old_definitions(
    gateway: Gateway, api: AgentApi, loaded: Face
) -> None:
    """New code that does not load shows its error, although older code did load."""
    error = SerializableErrorInfo("SyntaxError: oops", ["  File x.py\n"], "SyntaxError")
    stored = await upload(api.client, "error", serialize_value(error))
    result = DagsterCloudCodeLocationUpdateResult(
        location_name="here", manifest=None, error_snapshot=stored
    )

    await update(api.client, result)
    await gateway.refresh()

    assert await loaded.repositories() == error


async def test_load_error_says_that_a_newer_version_is_on_its_way(
    gateway: Gateway, home: Home, api: AgentApi, loaded: Face
) -> None:
    """Until it is there the old error is not all that the UI shows; the webserver is told, too."""
    gateway.services.presence.saw_poll("agent:one")
    error = SerializableErrorInfo(message="no module", stack=[], cls_name=None)
    failed = DagsterCloudCodeLocationUpdateResult(
        location_name="here",
        manifest=None,
        error_snapshot=await upload(api.client, "error", serialize_value(error)),
    )
    await update(api.client, failed)
    await asyncio.to_thread(deploy, gateway.services.locations)
    await asyncio.to_thread(tell, gateway, "job 4711, PENDING (Resources)", at=time.time())
    await gateway.refresh()
    shown = await loaded.repositories()
    assert isinstance(shown, SerializableErrorInfo)
    assert "A newer version, deployed at" in shown.message
    assert shown.message.index("job 4711, PENDING (Resources)") < shown.message.index("no module")
    told = json.loads(await asyncio.to_thread(home.updates_json.read_text))
    assert "job 4711, PENDING (Resources)" in told["here"]


async def test_call_is_answered_by_the_agent(gateway: Gateway, loaded: Face) -> None:
    """A call that needs user code reaches the agent under the location's name, without instance."""
    args = PartitionNamesArgs(
        repository_origin=repository_origin(), partition_set_name="s", job_name="work"
    )
    gateway.services.presence.saw_poll("agent:one")
    calling = asyncio.create_task(loaded.call("external_partition_names", args))
    request = await take_request(gateway)
    body = deserialize_value(request.body, DagsterCloudApiRequest)
    origin = body.request_args.repository_origin.code_location_origin
    assert origin == RegisteredCodeLocationOrigin("here")

    answer = serialize_value(PartitionNamesSnap(["a"]))
    response = DagsterCloudApiGrpcResponse(serialized_response_or_error=answer)
    await gateway.services.queue.answer(request.request_id, serialize_value(response))

    assert deserialize_value(await calling, PartitionNamesSnap).partition_names == ["a"]


async def test_call_without_agent_says_so(loaded: Face) -> None:
    """Nobody waits in vain: the error names what is missing."""
    args = PartitionNamesArgs(
        repository_origin=repository_origin(), partition_set_name="s", job_name="work"
    )

    answer = await loaded.call("external_partition_names", args)

    error = deserialize_value(answer, PartitionExecutionErrorSnap).error
    assert error is not None
    assert "no agent is connected" in error.message
    assert "no heartbeat has come yet" in error.message


async def test_call_that_is_taken_and_not_answered_tells_what_is_known(
    gateway: Gateway, loaded: Face
) -> None:
    """When the agent was last heard of, and how it said that its code server stands."""
    await asyncio.to_thread(tell, gateway, "job 4711, RUNNING on c1", at=time.time())
    args = PartitionNamesArgs(
        repository_origin=repository_origin(), partition_set_name="s", job_name="work"
    )
    gateway.services.presence.saw_poll("agent:one")
    services, view = gateway.services, gateway.view("here")
    caller = AgentCaller(services.queue, services.presence, services.agents)
    calling = asyncio.create_task(caller.call(PARTITION_NAMES, args, view, 4.0))
    await take_request(gateway)
    error = deserialize_value(await calling, PartitionExecutionErrorSnap).error
    assert error is not None
    assert "has taken GET_EXTERNAL_PARTITION_NAMES" in error.message
    assert "the last heartbeat, of agent one, came at" in error.message
    assert "it said: job 4711, RUNNING on c1" in error.message


async def test_launch_that_no_agent_takes_is_told_once(gateway: Gateway, loaded: Face) -> None:
    """A wait for an agent is not taken for one in a queue."""
    run = await asyncio.to_thread(new_run, gateway.services.instance, dg.DagsterRunStatus.STARTING)
    await start(gateway, loaded, run.run_id)
    take = gateway.services.requests.take_in_wait
    (launch,) = await asyncio.to_thread(take, "LAUNCH_RUN", time.time() + 1)
    await gateway.services.runs.tell_wait(launch)
    events = await asyncio.to_thread(gateway.services.instance.all_logs, run.run_id)
    (line,) = [each.message for each in events if "waits for an agent" in (each.message or "")]
    assert "none has taken it; no agent is connected, and no heartbeat has come yet" in line
    assert await asyncio.to_thread(take, "LAUNCH_RUN", time.time() + 1) == []


def tell(gateway: Gateway, message: str, *, at: float) -> None:
    """Let a heartbeat have come from agent one."""
    agent = Agent(
        deployment="prod", agent_id="one", token_id="t", label=None, agent_type="HpcAgent",
        heartbeat_at=at, heartbeat="{}", errors="[]",
    )  # fmt: skip
    server = CodeServer(location="here", status="STARTING", message=message)
    gateway.services.agents.record(agent, [server])


async def start(gateway: Gateway, face: Face, run_id: str) -> StartRunResult:
    origin = repository_origin().get_job_origin("work")
    ref = gateway.services.instance.get_ref()
    args = ExecuteExternalJobArgs(job_origin=origin, run_id=run_id, instance_ref=ref)
    return deserialize_value(await face.call("start_run", args), StartRunResult)


async def answer_success(gateway: Gateway, request: Request) -> None:
    response = serialize_value(DagsterCloudApiSuccess())
    await gateway.services.queue.answer(request.request_id, response)


async def test_run_is_launched_by_the_agent(gateway: Gateway, loaded: Face) -> None:
    """StartRun succeeds when the agent has taken the run."""
    run = new_run(gateway.services.instance, dg.DagsterRunStatus.STARTING)
    starting = asyncio.create_task(start(gateway, loaded, run.run_id))
    request = await take_request(gateway)
    body = deserialize_value(request.body, DagsterCloudApiRequest)
    assert body.request_args.dagster_run.run_id == run.run_id

    await answer_success(gateway, request)

    assert (await starting).success


async def test_refused_launch_tells_the_agents_reason(gateway: Gateway, loaded: Face) -> None:
    """The error of an agent that cannot launch is StartRun's error."""
    run = new_run(gateway.services.instance, dg.DagsterRunStatus.STARTING)
    starting = asyncio.create_task(start(gateway, loaded, run.run_id))
    request = await take_request(gateway)

    error = SerializableErrorInfo("partition gpu may not be used", [], "PolicyError")
    response = serialize_value(DagsterCloudApiErrorResponse(error_infos=[error]))
    await gateway.services.queue.answer(request.request_id, response)

    result = await starting
    assert not result.success
    assert result.serializable_error_info == error


async def test_late_refusal_fails_the_run(gateway: Gateway, api: AgentApi, face: Face) -> None:
    """An error that comes after StartRun has returned is reported in the run's log."""
    services = gateway.services
    run = new_run(services.instance, dg.DagsterRunStatus.STARTING)
    view = gateway.view("here")
    assert (await services.runs.start(run.run_id, view, wait_seconds=0.05)).success
    request = await take_request(gateway)

    error = SerializableErrorInfo("no such partition", [], None)
    response = serialize_value(DagsterCloudApiErrorResponse(error_infos=[error]))
    settled, is_awaited = await services.queue.answer(request.request_id, response)
    assert settled is not None
    assert not is_awaited
    await services.runs.settle(settled)

    failed = services.instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.status is dg.DagsterRunStatus.FAILURE
    messages = [entry.message for entry in services.instance.all_logs(run.run_id)]
    assert any("no such partition" in message for message in messages)


async def cancel(face: Face, run_id: str) -> CancelExecutionResult:
    answer = await face.call("cancel_execution", CancelExecutionRequest(run_id=run_id))
    return deserialize_value(answer, CancelExecutionResult)


async def test_cancel_before_launch_withdraws_the_run(gateway: Gateway, loaded: Face) -> None:
    """A run that no agent has taken is canceled at once, and is never launched."""
    services = gateway.services
    run = new_run(services.instance, dg.DagsterRunStatus.STARTING)
    await services.runs.start(run.run_id, gateway.view("here"), wait_seconds=0.01)

    result = await cancel(loaded, run.run_id)

    assert result.success
    canceled = services.instance.get_run_by_id(run.run_id)
    assert canceled is not None
    assert canceled.status is dg.DagsterRunStatus.CANCELED
    popped = services.requests.pop(owner="o", serves=Serves(deployments=["prod"]), limit=10)
    assert [request.api for request in popped] == ["CHECK_FOR_WORKSPACE_UPDATES"]


async def test_cancel_of_a_launched_run_asks_the_agent_once(gateway: Gateway, loaded: Face) -> None:
    """Canceling returns at once; pressing the button twice makes one request."""
    services = gateway.services
    run = new_run(services.instance, dg.DagsterRunStatus.STARTED)

    assert (await cancel(loaded, run.run_id)).success
    assert (await cancel(loaded, run.run_id)).success

    assert (await take_request(gateway)).api == "TERMINATE_RUN"
    popped = services.requests.pop(owner="o", serves=Serves(deployments=["prod"]), limit=10)
    assert popped == []


async def test_run_is_canceled_where_it_was_launched(gateway: Gateway, loaded: Face) -> None:
    """Its location has moved to the agents of another queue, which know nothing of it."""
    services = gateway.services
    run = new_run(services.instance, dg.DagsterRunStatus.STARTED)
    launch = Ask(
        api=DagsterCloudApi.LAUNCH_RUN, args=None, deployment="prod", run_id=run.run_id,
        agent_queue="cluster-a",
    )  # fmt: skip
    await services.queue.enqueue(launch)
    there = Serves(deployments=["prod"], queues=["cluster-a"])
    (launched,) = services.requests.pop(owner="a", serves=there, limit=10)
    services.requests.answer(launched.request_id, "null")
    with services.database.write() as connection:  # two days ago
        answered = sa.update(requests).where(requests.c.request_id == launched.request_id)
        connection.execute(answered.values(answered_at=time.time() - 2 * 86400))
    services.requests.sweep()
    kept = services.requests.get(launched.request_id)
    assert kept
    assert (kept.body, kept.response) == ("", None)

    assert (await cancel(loaded, run.run_id)).success

    popped = services.requests.pop(owner="a", serves=there, limit=10)
    assert [request.api for request in popped] == ["TERMINATE_RUN"]


async def test_finished_run_is_neither_started_nor_canceled(gateway: Gateway, loaded: Face) -> None:
    """What has ended stays ended."""
    run = new_run(gateway.services.instance, dg.DagsterRunStatus.SUCCESS)

    assert not (await start(gateway, loaded, run.run_id)).success
    assert not (await cancel(loaded, run.run_id)).success


async def test_reload_asks_for_a_redeploy(gateway: Gateway, loaded: Face) -> None:
    """The UI's reload button makes the agent start a new code server."""
    assert not gateway.services.locations.all()[0].is_outdated

    await loaded.call("reload_code", timeout=10)

    assert gateway.services.locations.all()[0].is_outdated
    assert isinstance(await loaded.repositories(), ListRepositoriesResponse)
