"""The agent API over TLS: authentication, long polls, events exactly once, compute logs."""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance
from dagster._core.events.log import EventLogEntry
from dagster._core.launcher import WorkerStatus
from dagster_cloud.agent.queries import ADD_AGENT_HEARTBEATS_MUTATION, GET_USER_CLOUD_REQUESTS_QUERY
from dagster_cloud.api.dagster_cloud_api import (
    AgentHeartbeat,
    DagsterCloudApi,
    StoreEventBatchRequest,
)
from dagster_cloud.execution.monitoring import CloudRunWorkerStatus, CloudRunWorkerStatuses
from dagster_cloud.storage.event_logs.queries import STORE_EVENT_MUTATION
from dagster_cloud.storage.event_logs.storage import _input_for_event
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import serialize_value

from hpc_agent.control_plane.events import EventWriter
from hpc_agent.control_plane.gateway import Gateway
from hpc_agent.control_plane.request_queue import Ask
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.idempotency import IdempotencyKeys
from tests.control_plane.conftest import AgentApi, on_both_databases
from tests.control_plane.definitions import new_run

pytestmark = on_both_databases

POP = {
    "query": GET_USER_CLOUD_REQUESTS_QUERY,
    "variables": {"forFullDeployments": ["prod"], "agentQueues": [None]},
}


def run_started(run_id: str) -> EventLogEntry:
    return of_run(run_id, DagsterEventType.RUN_START)


def of_run(run_id: str, kind: DagsterEventType) -> EventLogEntry:
    event = DagsterEvent(event_type_value=kind.value, job_name="work", message="told")
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None, level=10, user_message="", run_id=run_id, timestamp=time.time(),
        step_key=None, job_name="work", dagster_event=event,
    )  # fmt: skip


def engine_error(run_id: str) -> EventLogEntry:
    cause = SerializableErrorInfo("inner", ["b\n"], "KeyError")
    error = SerializableErrorInfo("outer", ["a\n"], "ValueError", cause)
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=error, level=40, user_message="went wrong", run_id=run_id,
        timestamp=time.time(), step_key="do", job_name="work", dagster_event=None,
    )  # fmt: skip


async def graphql(api: AgentApi, query: str, variables: Any, **headers: str) -> Any:
    body = {"query": query, "variables": variables}
    response = await api.client.post("/graphql", json=body, headers=headers)
    response.raise_for_status()
    answer = response.json()
    assert "errors" not in answer, answer
    return answer["data"]


async def store(api: AgentApi, entry: EventLogEntry, key: str) -> None:
    variables = {"eventRecord": _input_for_event(entry)}
    await graphql(api, STORE_EVENT_MUTATION, variables, **{"Idempotency-Key": key})


async def test_requests_without_a_valid_token_are_refused(api: AgentApi, gateway: Gateway) -> None:
    """401 without a token, with a wrong one, and with one that was revoked."""
    bad = {"Dagster-Cloud-Api-Token": api.token + "0"}
    assert (await api.client.post("/graphql", json=POP, headers=bad)).status_code == 401
    assert gateway.services.tokens.revoke(api.token_id)

    response = await api.client.post("/graphql", json=POP)

    assert response.status_code == 401
    assert "control-plane token create" in response.json()["error"]


async def test_token_may_come_as_bearer(api: AgentApi) -> None:
    """``Authorization: Bearer`` does as well."""
    headers = {"Dagster-Cloud-Api-Token": "", "Authorization": f"Bearer {api.token}"}

    assert (await api.client.post("/graphql", json=POP, headers=headers)).status_code == 200


async def test_health_needs_no_token(api: AgentApi) -> None:
    response = await api.client.get("/healthz", headers={"Dagster-Cloud-Api-Token": ""})

    assert response.json()["status"] == "ok"


async def test_long_poll_is_answered_at_once_by_a_new_request(
    api: AgentApi, gateway: Gateway
) -> None:
    """``Prefer: wait`` holds an empty poll until there is something, and no longer."""
    headers = {"Prefer": "respond-async, wait=60", "X-Hpc-Agent-Id": "one"}
    polling = asyncio.create_task(api.client.post("/graphql", json=POP, headers=headers))
    await asyncio.sleep(0.3)
    assert not polling.done()
    enqueued = time.monotonic()

    args = Ask(api=DagsterCloudApi.CHECK_FOR_WORKSPACE_UPDATES, args=None, deployment="prod")
    request_id = await gateway.services.queue.enqueue(args)

    data = (await polling).json()["data"]
    assert time.monotonic() - enqueued < 1
    popped = data["userCloudAgent"]["popUserCloudAgentRequests"]
    assert [request["requestId"] for request in popped] == [request_id]


async def test_poll_anew_brings_again_what_was_not_answered(
    api: AgentApi, gateway: Gateway
) -> None:
    """An agent that names itself and has lost an answer need not wait for a minute."""
    args = Ask(api=DagsterCloudApi.CHECK_FOR_WORKSPACE_UPDATES, args=None, deployment="prod")
    request_id = await gateway.services.queue.enqueue(args)

    async def poll(**more: str) -> list[str]:
        headers = {"X-Hpc-Agent-Id": "one"} | more
        data = (await api.client.post("/graphql", json=POP, headers=headers)).json()["data"]
        popped = data["userCloudAgent"]["popUserCloudAgentRequests"]
        return [request["requestId"] for request in popped]

    assert await poll() == [request_id]
    assert await poll() == []
    assert await poll(**{"X-Hpc-Poll": "anew"}) == [request_id]


async def test_long_poll_ends_with_its_time(api: AgentApi) -> None:
    """An agent that waits in vain gets an empty answer when it asked for it."""
    started = time.monotonic()

    data = (await api.client.post("/graphql", json=POP, headers={"Prefer": "wait=1"})).json()

    assert data["data"]["userCloudAgent"]["popUserCloudAgentRequests"] == []
    assert 0.9 < time.monotonic() - started < 10


async def test_heartbeat_may_leave_out_workers_that_are_well(api: AgentApi) -> None:
    """Whoever would rather do so is told that it may; whoever says nothing is told nothing."""
    body = {"query": ADD_AGENT_HEARTBEATS_MUTATION, "variables": {}}
    headers = {"Prefer": "hpc-failed-workers-alone"}

    asked = await api.client.post("/graphql", json=body, headers=headers)
    unasked = await api.client.post("/graphql", json=body)

    assert asked.headers["Preference-Applied"] == "hpc-failed-workers-alone"
    assert "Preference-Applied" not in unasked.headers


async def test_event_changes_the_run(api: AgentApi, gateway: Gateway) -> None:
    """A stored event does what it does in any Dagster instance: the run has started."""
    run = new_run(gateway.services.instance, dg.DagsterRunStatus.STARTING)

    await store(api, run_started(run.run_id), "k")

    stored = gateway.services.instance.get_run_by_id(run.run_id)
    assert stored is not None
    assert stored.status is dg.DagsterRunStatus.STARTED


async def test_event_comes_back_whole(api: AgentApi, gateway: Gateway) -> None:
    """What ``_input_for_event`` encodes is decoded to an equal event, causes included."""
    run = new_run(gateway.services.instance, dg.DagsterRunStatus.STARTED)
    entry = engine_error(run.run_id)

    await store(api, entry, "k")

    assert gateway.services.instance.all_logs(run.run_id) == [entry]


async def test_repeated_event_is_stored_once(api: AgentApi, gateway: Gateway) -> None:
    """The same idempotency key, even at the same moment, is the same event."""
    run = new_run(gateway.services.instance, dg.DagsterRunStatus.STARTED)
    entry = engine_error(run.run_id)

    await asyncio.gather(*(store(api, entry, "same") for _ in range(3)))
    await store(api, entry, "other")

    assert len(gateway.services.instance.all_logs(run.run_id)) == 2


@pytest.mark.parametrize("died_before_storing", [True, False])
async def test_write_cut_off_by_a_crash_is_completed(
    gateway: Gateway, database: Database, died_before_storing: bool
) -> None:
    """A write whose process died is repeated if it was lost, and not if it was stored."""
    instance: DagsterInstance = gateway.services.instance
    run = new_run(instance, dg.DagsterRunStatus.STARTED)
    entry = engine_error(run.run_id)
    keys = IdempotencyKeys(database)
    with pytest.raises(ZeroDivisionError), keys.once("k"):
        if not died_before_storing:
            instance.handle_new_event(entry)
        raise ZeroDivisionError

    EventWriter(instance, keys).write([entry], "k")

    assert instance.all_logs(run.run_id) == [entry]


@pytest.mark.parametrize("died_before_looking", [False, True])
async def test_run_that_has_failed_is_not_canceled_by_its_worker(
    gateway: Gateway, database: Database, died_before_looking: bool
) -> None:
    """The monitor ends a run, which looked before that was told, and says that it is canceled."""
    instance: DagsterInstance = gateway.services.instance
    run = new_run(instance, dg.DagsterRunStatus.CANCELING)
    instance.report_run_failed(run, "Exceeded maximum runtime of 3 seconds.")
    keys, entry = IdempotencyKeys(database), of_run(run.run_id, DagsterEventType.RUN_CANCELED)
    if died_before_looking:
        with pytest.raises(ZeroDivisionError), keys.once("k"):
            instance.handle_new_event(entry)
            raise ZeroDivisionError

    EventWriter(instance, keys).write([entry], "k")

    stored = instance.get_run_record_by_id(run.run_id)
    assert stored
    assert stored.dagster_run.status is dg.DagsterRunStatus.FAILURE
    assert entry in instance.all_logs(run.run_id)


@pytest.mark.parametrize("kind", [DagsterEventType.RUN_CANCELING, DagsterEventType.RUN_CANCELED])
async def test_run_that_has_succeeded_is_not_canceled(
    api: AgentApi, gateway: Gateway, kind: DagsterEventType
) -> None:
    """An agent ends its job, which hangs."""
    instance: DagsterInstance = gateway.services.instance
    run = new_run(instance, dg.DagsterRunStatus.STARTED)
    await store(api, of_run(run.run_id, DagsterEventType.RUN_SUCCESS), "success")
    await store(api, of_run(run.run_id, kind), "cancellation")
    stored = instance.get_run_by_id(run.run_id)
    assert stored
    assert stored.status is dg.DagsterRunStatus.SUCCESS


async def test_events_may_come_as_an_upload(api: AgentApi, gateway: Gateway) -> None:
    """``/store_events`` takes a compressed batch, and honours the key too."""
    run = new_run(gateway.services.instance, dg.DagsterRunStatus.STARTED)
    entries = [engine_error(run.run_id), engine_error(run.run_id)]
    batch = serialize_value(StoreEventBatchRequest(event_log_entries=entries))
    files = {"store_events.tmp": zlib.compress(batch.encode())}

    for _ in range(2):
        response = await api.client.post(
            "/store_events", files=files, headers={"Idempotency-Key": "b"}
        )
        assert response.status_code == 200, response.text

    assert gateway.services.instance.all_logs(run.run_id) == entries


async def upload_log(api: AgentApi, key: list[str], io: str, text: str, **extra: str) -> None:
    query: dict[str, Any] = {
        "log_key": key,
        "io_type": io,
        "size_bytes": len(text),
        "method": "PUT",
        **extra,
    }
    url = (await api.client.get("/gen_logs_url", params=query)).json()["url"]
    async with httpx.AsyncClient(verify=False) as client:  # noqa: S501 as bare as a pre-signed PUT
        response = await client.put(url, content=text.encode())
    assert response.status_code == 200, response.text


async def test_compute_logs_grow_and_end(api: AgentApi, gateway: Gateway) -> None:
    """Partial uploads are readable while the step runs; the last ones complete the log."""
    manager = gateway.services.instance.compute_log_manager
    key = ["run", "compute_logs", "step"]
    await upload_log(api, key, "stdout", "one\n", partial="True")
    first = manager.get_log_data(key)
    assert first.stdout == b"one\n"
    assert not manager.is_capture_complete(key)

    await upload_log(api, key, "stdout", "one\ntwo\n")
    await upload_log(api, key, "stderr", "")

    assert manager.get_log_data(key, first.cursor).stdout == b"two\n"
    assert manager.is_capture_complete(key)

    await upload_log(api, key, "stdout", "one\n", partial="True")  # tried again for long
    assert manager.get_log_data(key).stdout == b"one\ntwo\n"


async def test_forged_upload_address_is_refused(api: AgentApi) -> None:
    """An upload address that we did not sign is worth nothing."""
    query: dict[str, Any] = {"log_key": ["a"], "io_type": "stdout", "size_bytes": 1}
    url: str = (await api.client.get("/gen_logs_url", params=query)).json()["url"]

    response = await api.client.put(url[:-2] + ("AA" if url[-2:] != "AA" else "BB"), content=b"x")

    assert response.status_code == 400


async def test_damaged_snapshot_is_refused(api: AgentApi) -> None:
    """A snapshot that is not what its name says is not stored."""
    query: dict[str, Any] = {"type": "job", "sha1": "0" * 40, "size": 3, "formats": ["json.gz"]}
    checked = (await api.client.get("/check_snapshot", params=query)).json()
    url = checked["upload_data"]["presigned_put_url"]

    response = await api.client.put(url, content=zlib.compress(b"abc"))

    assert response.status_code == 400
    assert "damaged" in response.json()["error"]


async def test_too_large_a_body_is_refused(api: AgentApi) -> None:
    """413 comes before the body is read: the stock agent then sends a smaller heartbeat."""
    url = httpx.URL(api.url)
    reader, writer = await asyncio.open_connection(url.host, url.port, ssl=api.trust)
    head = f"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n"
    writer.write(f"{head}Dagster-Cloud-Api-Token: {api.token}\r\n\r\n{{".encode())

    status = await asyncio.wait_for(reader.readline(), 20)

    writer.close()
    assert status.startswith(b"HTTP/1.1 413")


async def heartbeat(api: AgentApi, status: CloudRunWorkerStatus) -> None:
    beat = AgentHeartbeat(
        timestamp=time.time(), agent_id="one", agent_label=None, agent_type="HpcAgent",
        run_worker_statuses=CloudRunWorkerStatuses(
            [status], run_worker_monitoring_supported=True, run_worker_monitoring_thread_alive=True
        ),
    )  # fmt: skip
    beats = [{"deploymentName": "prod", "serializedAgentHeartbeat": serialize_value(beat)}]
    variables = {"serializedAgentHeartbeats": beats, "serializedErrors": []}
    await graphql(api, ADD_AGENT_HEARTBEATS_MUTATION, variables)


async def test_failed_worker_fails_its_run(api: AgentApi, gateway: Gateway) -> None:
    """A run whose worker died fails with the agent's reason."""
    instance = gateway.services.instance
    run = new_run(instance, dg.DagsterRunStatus.STARTED)
    reason = "OUT_OF_MEMORY: used 4.1 of 4.0 GB; raise dagster-hpc/mem"

    await heartbeat(api, CloudRunWorkerStatus(run.run_id, WorkerStatus.FAILED, reason))

    failed = instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.status is dg.DagsterRunStatus.FAILURE
    assert any(reason in entry.message for entry in instance.all_logs(run.run_id))


async def test_finished_run_stays_as_it_is(api: AgentApi, gateway: Gateway) -> None:
    """News of a dead worker does not change a run that has succeeded."""
    instance = gateway.services.instance
    run = new_run(instance, dg.DagsterRunStatus.SUCCESS)

    await heartbeat(api, CloudRunWorkerStatus(run.run_id, WorkerStatus.FAILED, "gone"))

    succeeded = instance.get_run_by_id(run.run_id)
    assert succeeded is not None
    assert succeeded.status is dg.DagsterRunStatus.SUCCESS
