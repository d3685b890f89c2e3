"""Two gateway processes over one PostgreSQL, agents on both, and one of them killed."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import sqlalchemy as sa
from dagster import DagsterInstance
from dagster_cloud.agent.queries import GET_USER_CLOUD_REQUESTS_QUERY
from dagster_cloud.api.dagster_cloud_api import DagsterCloudApi
from dagster_cloud.storage.event_logs.queries import STORE_EVENT_MUTATION
from dagster_cloud.storage.event_logs.storage import _input_for_event

from hpc_agent.control_plane.database_url import VARIABLE
from hpc_agent.control_plane.request_queue import Ask, new_request
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.requests import Requests
from hpc_agent.control_plane.store.tokens import TokenKind, Tokens
from tests.control_plane.definitions import new_run
from tests.control_plane.running import ControlPlane, running_control_plane
from tests.control_plane.test_agent_api import engine_error

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

REQUESTS = 200


@pytest.fixture
def planes(
    shared_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ControlPlane, ControlPlane]]:
    """Two gateways as an admin starts them: same URL, other home, other port."""
    monkeypatch.setenv(VARIABLE, shared_url)
    options = ("--no-webserver", "--no-daemon")
    with (
        running_control_plane(tmp_path / "one", *options) as one,
        running_control_plane(tmp_path / "two", *options) as two,
    ):
        yield one, two


@pytest.fixture
def token(shared_url: str) -> str:
    """An agent token, good at every gateway."""
    return Tokens(Database(shared_url)).create("agents", TokenKind.AGENT)[1]


@asynccontextmanager
async def client(plane: ControlPlane, token: str, agent: str) -> AsyncIterator[httpx.AsyncClient]:
    """Talk to a gateway as a certain agent."""
    headers = {"Dagster-Cloud-Api-Token": token, "X-Hpc-Agent-Id": agent}
    trust = ssl.create_default_context(cafile=plane.ca)
    async with httpx.AsyncClient(
        base_url=plane.api, verify=trust, headers=headers, timeout=60, trust_env=False
    ) as opened:
        yield opened


async def pop(client: httpx.AsyncClient, wait: int = 0) -> list[str]:
    """Poll once, as the stock agent does, and return the ids of the requests."""
    variables = {"forFullDeployments": ["prod"], "agentQueues": [None]}
    body = {"query": GET_USER_CLOUD_REQUESTS_QUERY, "variables": variables}
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    response = await client.post("/graphql", json=body, headers=headers)
    response.raise_for_status()
    popped = response.json()["data"]["userCloudAgent"]["popUserCloudAgentRequests"]
    return [request["requestId"] for request in popped]


def add_launches(requests: Requests, count: int) -> set[str]:
    """Enqueue launches and return their ids."""
    asks = [
        Ask(api=DagsterCloudApi.LAUNCH_RUN, args=None, deployment="prod", run_id=str(number))
        for number in range(count)
    ]
    made = [new_request(ask) for ask in asks]
    for request in made:
        requests.add(request)
    return {request.request_id for request in made}


async def test_each_request_is_handed_out_exactly_once(
    planes: tuple[ControlPlane, ControlPlane], token: str, shared_url: str
) -> None:
    """Four agents poll two gateways while requests come in: none is lost, none is taken twice."""
    requests = Requests(Database(shared_url))
    taken: Counter[str] = Counter()

    async def poll_until_done(plane: ControlPlane, agent: str) -> None:
        async with client(plane, token, agent) as opened:
            while taken.total() < REQUESTS:
                taken.update(await pop(opened, wait=2))

    agents = [poll_until_done(plane, f"agent-{i}") for i, plane in enumerate((*planes, *planes))]
    added, *_ = await asyncio.wait_for(
        asyncio.gather(asyncio.to_thread(add_launches, requests, REQUESTS), *agents), 120
    )

    assert taken == Counter(added)
    assert all(request.hand_outs == 1 for request in requests.leased())


async def test_leases_given_by_a_killed_gateway_are_kept_by_the_other(
    planes: tuple[ControlPlane, ControlPlane], token: str, shared_url: str
) -> None:
    """After kill -9 its agents go to the other gateway, and get what they have not answered.

    A request that had been answered stays answered.
    """
    one, two = planes
    database = Database(shared_url)
    requests = Requests(database)
    added = add_launches(requests, 5)
    async with client(one, token, "wanderer") as opened:
        first = await pop(opened)
    assert set(first) == added
    requests.answer(first[0], "done")
    one.process.kill()
    one.process.wait()
    with database.write() as connection:  # let the time pass after which it was lost on the way
        connection.execute(sa.text("UPDATE requests SET leased_at = leased_at - 3600"))

    again: list[str] = []
    async with client(two, token, "wanderer") as opened:
        async with asyncio.timeout(60):
            while len(again) < len(first) - 1:
                again += await pop(opened, wait=5)

    assert sorted(again) == sorted(first[1:])


async def test_repeated_event_at_two_gateways_is_stored_once(
    planes: tuple[ControlPlane, ControlPlane], token: str
) -> None:
    """An idempotency key means the same write wherever it is sent, also at the same moment."""
    with DagsterInstance.from_config(str(planes[0].home)) as instance:
        run = new_run(instance, dg.DagsterRunStatus.STARTED)
        record: dict[str, Any] = _input_for_event(engine_error(run.run_id))
        body = {"query": STORE_EVENT_MUTATION, "variables": {"eventRecord": record}}

        async def store(opened: httpx.AsyncClient) -> None:
            response = await opened.post("/graphql", json=body, headers={"Idempotency-Key": "k"})
            response.raise_for_status()
            assert "errors" not in response.json()

        async with client(planes[0], token, "a") as one, client(planes[1], token, "a") as two:
            await asyncio.gather(*(store(opened) for opened in (one, two) * 10))

        assert len(instance.all_logs(run.run_id)) == 1


async def test_request_at_one_gateway_ends_a_long_poll_at_the_other(
    planes: tuple[ControlPlane, ControlPlane], token: str, shared_url: str
) -> None:
    """Work is not kept waiting until the poll's time is over."""
    started = time.monotonic()
    async with client(planes[1], token, "waiting") as opened:
        polling = asyncio.create_task(pop(opened, wait=50))
        added = await asyncio.to_thread(add_launches, Requests(Database(shared_url)), 1)

        assert set(await polling) == added
    assert time.monotonic() - started < 40


async def put_artifact(opened: httpx.AsyncClient, content: bytes) -> None:
    made = await opened.post("/gen_artifact_post", json={"key": "state"})
    made.raise_for_status()
    stored = await opened.post(made.json()["url"], files={"file": content})
    assert stored.status_code == 204, stored.text


async def get_artifact(opened: httpx.AsyncClient) -> bytes:
    made = await opened.post("/gen_artifact_get", json={"key": "state"})
    made.raise_for_status()
    fetched = await opened.get(made.json()["url"])
    fetched.raise_for_status()
    return fetched.content


async def test_artifact_is_the_same_at_every_gateway(
    planes: tuple[ControlPlane, ControlPlane], token: str
) -> None:
    """What was put at one is fetched, and replaced, at the other; bytes of any kind."""
    async with client(planes[0], token, "a") as one, client(planes[1], token, "a") as two:
        await put_artifact(one, bytes(range(256)))
        assert await get_artifact(two) == bytes(range(256))

        await put_artifact(two, b"newer")

        assert await get_artifact(one) == b"newer"


async def test_address_of_an_artifact_is_good_at_every_gateway(
    planes: tuple[ControlPlane, ControlPlane], token: str
) -> None:
    """Behind one name, the fetch may reach another gateway than the one that gave its address."""
    async with client(planes[0], token, "a") as one, client(planes[1], token, "a") as two:
        await put_artifact(one, b"here")
        address = (await one.post("/gen_artifact_get", json={"key": "state"})).json()["url"]

        assert (await two.get(httpx.URL(address).path)).content == b"here"


async def answered(opened: httpx.AsyncClient, status: int) -> dict[str, Any]:
    """Return the answer to a poll once it has this status."""
    async with asyncio.timeout(30):
        while True:
            response = await opened.post("/graphql", json={"query": "{ __typename }"})
            if response.status_code == status:
                found: dict[str, Any] = response.json()
                return found
            await asyncio.sleep(0.05)


async def test_maintenance_holds_at_every_gateway(
    planes: tuple[ControlPlane, ControlPlane], token: str
) -> None:
    """One switch, thrown at any home, puts off and lets in the clients of all gateways."""
    one, two = planes
    async with client(one, token, "a") as at_one, client(two, token, "a") as at_two:
        one.cli("maintenance", "on", "--message", "moving disks")
        told = [await answered(each, 503) for each in (at_one, at_two)]
        assert [each["maintenance"]["message"] for each in told] == ["moving disks"] * 2

        two.cli("maintenance", "off")

        for each in (at_one, at_two):
            assert (await answered(each, 200))["data"] == {"__typename": "Query"}
