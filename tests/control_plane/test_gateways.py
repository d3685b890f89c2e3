"""Several gateways over one PostgreSQL behave as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import dagster as dg
import pytest
import pytest_asyncio
import sqlalchemy as sa
from dagster._core.remote_representation.external_data import JobDataSnap
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._grpc.types import StartRunResult
from dagster_cloud.api.dagster_cloud_api import (
    DagsterCloudApi,
    DagsterCloudApiErrorResponse,
    DagsterCloudApiSuccess,
)
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import deserialize_value, serialize_value

from hpc_agent.control_plane.gateway import Gateway, open_gateway
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.presence import LEASE_SECONDS, AgentPresence
from hpc_agent.control_plane.request_queue import Ask, RequestQueue
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.postgresql import listen
from hpc_agent.control_plane.store.requests import Request, Requests, Serves
from hpc_agent.control_plane.store.schema import requests
from hpc_agent.control_plane.store.settings import Settings
from hpc_agent.control_plane.store.sightings import Sightings
from tests.control_plane.conftest import listening, postgres_home
from tests.control_plane.definitions import deploy, new_run, upload_location
from tests.control_plane.test_requests import Clock

LAUNCH = DagsterCloudApi.LAUNCH_RUN
PROD = Serves(deployments=["prod"])


@pytest_asyncio.fixture
async def gateways(shared_url: str, tmp_path: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two gateways with homes of their own, hearing each other."""

    async def changed(_added: set[str]) -> None:
        return

    homes = [postgres_home(tmp_path / name, shared_url) for name in ("one", "two")]
    async with open_gateway(homes[0], changed) as one, open_gateway(homes[1], changed) as two:
        hearing = [asyncio.create_task(each.listen()) for each in (one, two)]
        yield one, two
        for task in hearing:
            task.cancel()
        await asyncio.gather(*hearing, return_exceptions=True)


async def take_launch(gateway: Gateway) -> Request:
    """Pop a launch as an agent does that polls this gateway."""
    async with asyncio.timeout(30):
        while True:
            found = await asyncio.to_thread(
                gateway.services.requests.pop, owner="agent:a", serves=PROD, limit=10
            )
            for request in found:
                if request.api == LAUNCH.name:
                    return request
            await asyncio.sleep(0.02)


def refusal() -> str:
    error = SerializableErrorInfo("no such partition", [], "SchedulerError")
    return serialize_value(DagsterCloudApiErrorResponse(error_infos=[error]))


async def started_by(
    asked: Gateway, polled: Gateway, answer: str
) -> tuple[StartRunResult, bool, dg.DagsterRun]:
    """Launch a run at one gateway and answer at another.

    Returns the result, whether the answering one left the answer to a waiting task, and the run.
    """
    deploy(asked.services.locations)
    await asked.refresh()
    run = new_run(asked.services.instance, dg.DagsterRunStatus.STARTING)
    starting = asyncio.create_task(
        asked.services.runs.start(run.run_id, asked.view("here"), wait_seconds=20.0)
    )
    request = await take_launch(polled)
    _, is_awaited = await polled.services.queue.answer(request.request_id, answer)
    result = await asyncio.wait_for(starting, 20)
    found = asked.services.instance.get_run_by_id(run.run_id)
    assert found is not None
    return result, is_awaited, found


async def test_answer_at_one_gateway_reaches_the_caller_at_another(
    gateways: tuple[Gateway, Gateway],
) -> None:
    """An agent polls whichever gateway it knows; who asked gets the answer."""
    result, is_awaited, _ = await started_by(*gateways, serialize_value(DagsterCloudApiSuccess()))

    assert result.success
    assert is_awaited


async def test_answer_before_the_caller_waits_is_left_to_it(
    gateways: tuple[Gateway, Gateway],
) -> None:
    """The agent of another gateway may be quicker than the task that has just asked."""
    one, two = gateways
    ask = Ask(api=LAUNCH, args=None, deployment="prod")
    request_id = await one.services.queue.enqueue(ask, acting_for=20)
    _, is_awaited = await two.services.queue.answer(request_id, refusal())
    assert is_awaited
    taken = await one.services.queue.act_on_answer(request_id, 20)
    assert taken is not None and taken.response == refusal()


async def test_definitions_uploaded_to_one_gateway_are_shown_by_all(
    gateways: tuple[Gateway, Gateway], tmp_path: Path
) -> None:
    """A webserver beside any gateway finds every location, though they share no directory."""
    one, two = gateways
    deploy(one.services.locations)
    async with listening(one, Home(tmp_path / "one")) as api:
        await upload_location(api.client)

    await two.refresh()

    manifest = two.view("here").manifest
    assert manifest is not None
    name = manifest.repositories[0].name
    job = await asyncio.to_thread(two.services.repositories.job, manifest, name, "work")
    assert deserialize_value(job, JobDataSnap).name == "work"


async def test_deploy_that_all_gateways_notice_makes_one_request(
    gateways: tuple[Gateway, Gateway],
) -> None:
    """Both see the new location in the same moment, and one request to look at it is enough."""
    for number in range(5):
        deploy(gateways[0].services.locations, name=f"number-{number}")
        await asyncio.gather(*(gateway.refresh() for gateway in gateways))

    popped = gateways[0].services.requests.pop(owner="agent:a", serves=PROD, limit=10)

    assert [request.api for request in popped] == ["CHECK_FOR_WORKSPACE_UPDATES"]


async def test_refusal_is_acted_on_by_the_caller_alone(gateways: tuple[Gateway, Gateway]) -> None:
    """The gateway that took the answer leaves the run to the one whose launch it was."""
    result, is_awaited, run = await started_by(*gateways, refusal())

    assert not result.success
    assert "no such partition" in (result.message or "")
    assert is_awaited
    assert run.status is dg.DagsterRunStatus.STARTING


async def test_answer_whose_caller_was_killed_is_settled_once(
    gateways: tuple[Gateway, Gateway], shared_url: str
) -> None:
    """When the gateway that waits dies, another acts on the answer in its stead."""
    one, two = gateways
    run = new_run(one.services.instance, dg.DagsterRunStatus.STARTING)
    ask = Ask(api=LAUNCH, args=None, deployment="prod", run_id=run.run_id)
    request_id = await one.services.queue.enqueue(ask)
    dying = asyncio.create_task(one.services.queue.act_on_answer(request_id, 60))
    await awaited(shared_url, request_id)
    dying.cancel()
    await take_launch(two)
    _, is_awaited = await two.services.queue.answer(request_id, refusal())
    assert is_awaited
    assert await two.services.queue.abandoned() == []

    two.services.requests.await_answer(request_id, 1.0)  # long ago
    abandoned = await two.services.queue.abandoned()

    assert [each.request_id for each in abandoned] == [request_id]
    assert await one.services.queue.abandoned() == []
    await two.services.runs.settle(abandoned[0])
    found = two.services.instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is dg.DagsterRunStatus.FAILURE


async def test_answer_that_nobody_can_act_on_now_is_settled_later(
    gateways: tuple[Gateway, Gateway],
) -> None:
    """And holds up none behind it."""
    one, _ = gateways
    runs = [new_run(one.services.instance, dg.DagsterRunStatus.STARTING) for _ in range(2)]
    answers = {}
    for run, answer in zip(runs, ("nonsense", refusal()), strict=True):
        ask = Ask(api=LAUNCH, args=None, deployment="prod", run_id=run.run_id)
        request_id = await one.services.queue.enqueue(ask)
        await take_launch(one)
        await one.services.queue.answer(request_id, answer)
        answers[request_id] = run.run_id

    async def look_again() -> list[dg.DagsterRunStatus]:
        for request_id in answers:
            one.services.requests.await_answer(request_id, 1.0)  # long ago
        await one.settle_abandoned()
        found = [one.services.instance.get_run_by_id(run.run_id) for run in runs]
        return [run.status for run in found if run]

    assert await look_again() == [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.FAILURE]
    first, _ = answers
    with one.services.database.write() as connection:
        mended = sa.update(requests).where(requests.c.request_id == first)
        connection.execute(mended.values(response=refusal()))
    assert await look_again() == [dg.DagsterRunStatus.FAILURE] * 2
    await one.settle_abandoned()
    assert await one.services.queue.abandoned() == []


async def awaited(url: str, request_id: str) -> None:
    """Wait until a request is known to be awaited."""
    requests = Requests(Database(url))
    async with asyncio.timeout(30):
        while True:
            request = await asyncio.to_thread(requests.get, request_id)
            if request is not None and request.awaited_until is not None:
                return
            await asyncio.sleep(0.02)


async def test_long_poll_hears_of_a_request_at_another_gateway(shared_url: str) -> None:
    """Notices carry the news: the poll ends though it never looks into the database by itself."""
    database = Database(shared_url)
    requests, presence = Requests(database), AgentPresence()
    queue = RequestQueue(requests, presence, poll_seconds=60)
    hearing = asyncio.create_task(listen(shared_url, queue.heard))
    waiting = asyncio.create_task(queue.wait_for_request(60))
    other = RequestQueue(requests, presence)
    async with asyncio.timeout(20):
        while not waiting.done():  # the notice may come before somebody listens
            await other.enqueue(Ask(api=LAUNCH, args=None, deployment="prod"))
            await asyncio.wait([waiting], timeout=1)
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
    database.close()


async def test_listener_comes_back_after_a_broken_connection(shared_url: str) -> None:
    """A restart of PostgreSQL costs a few notices, no more."""
    heard: list[str] = []
    hearing = asyncio.create_task(listen(shared_url, heard.append))
    database = Database(shared_url)
    requests = Requests(database)
    await until_heard(requests, heard)
    with database.write() as connection:
        victims = sa.text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        )
        assert connection.execute(victims).rowcount == 1

    heard.clear()
    await until_heard(requests, heard)

    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
    database.close()


async def until_heard(requests: Requests, heard: list[str]) -> None:
    async with asyncio.timeout(30):
        while not heard:
            await asyncio.to_thread(requests.hand_back, [])
            await asyncio.sleep(0.1)


async def test_agent_is_alive_wherever_it_was_seen(shared_url: str) -> None:
    """A lease is lost when its agent is silent at all gateways, and not before."""
    database = Database(shared_url)
    clock = Clock()
    here, there = AgentPresence(clock), AgentPresence(clock)
    requests, sightings = Requests(database), Sightings(database)
    mine, other = (RequestQueue(requests, each, sightings) for each in (here, there))
    request_id = await mine.enqueue(Ask(api=LAUNCH, args=None, deployment="prod", run_id="r"))
    requests.pop(owner="agent:one", serves=PROD, limit=10)
    clock.now += LEASE_SECONDS + 1
    here.saw_heartbeat("one", "token")
    await mine.share_presence()
    await other.share_presence()

    await other.recover_leases()
    assert requests.pop(owner="agent:two", serves=PROD, limit=10) == []
    assert there.any_alive()

    clock.now += LEASE_SECONDS + 1
    await other.recover_leases()
    popped = requests.pop(owner="agent:two", serves=PROD, limit=10)

    assert [each.request_id for each in popped] == [request_id]
    database.close()


async def test_lease_handed_back_twice_is_handed_out_once(shared_url: str) -> None:
    """Two gateways find the same lost lease; the second one must not undo the new lease."""
    database = Database(shared_url)
    requests = Requests(database)
    queue = RequestQueue(requests, AgentPresence())
    await queue.enqueue(Ask(api=LAUNCH, args=None, deployment="prod", run_id="r"))
    requests.pop(owner="agent:one", serves=PROD, limit=1)
    lost = requests.leased()

    requests.hand_back(lost)
    assert len(requests.pop(owner="agent:two", serves=PROD, limit=1)) == 1
    requests.hand_back(lost)

    assert requests.pop(owner="agent:three", serves=PROD, limit=1) == []
    database.close()


def test_gateways_sign_upload_addresses_alike(shared_url: str) -> None:
    """Behind one name, an upload may reach another gateway than the one that gave its address."""
    one, two = Database(shared_url), Database(shared_url)

    assert Settings(one).url_key() == Settings(two).url_key()
    one.close()
    two.close()


def session_of(gateway: Gateway) -> int:
    """Return the process that answers Dagster's storage of events in PostgreSQL."""
    log = gateway.services.instance.event_log_storage
    assert isinstance(log, SqlEventLogStorage)
    with log.index_connection() as connection:
        return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


async def test_storages_keep_their_connections(gateways: tuple[Gateway, Gateway]) -> None:
    """To connect takes longer than to store an event; a connection that breaks fails one call."""
    one, two = gateways
    session = await asyncio.to_thread(session_of, one)
    assert await asyncio.to_thread(session_of, one) == session

    with one.services.database.write() as connection:
        connection.execute(sa.select(sa.func.pg_terminate_backend(session)))
    with pytest.raises(sa.exc.OperationalError):
        await asyncio.to_thread(session_of, one)

    assert await asyncio.to_thread(session_of, one) != session
    assert await asyncio.to_thread(session_of, two) != session
