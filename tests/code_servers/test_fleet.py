"""Servers come with demand and go without it; deploys replace them; limits hold."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from hpc_agent.agent.bells import Bells
from hpc_agent.code_servers.reconciliation import DRAIN_SECONDS
from hpc_agent.code_servers.server_statuses import server_heartbeats
from hpc_agent.errors import CodeServerError, CodeServerUnavailableError
from hpc_agent.store import meta, workers
from hpc_agent.store.code_servers import ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Clock
from tests.code_servers.conftest import (
    Harbour,
    deployment,
    entry,
    fleet_config,
    make_harbour,
    rings,
)

TTL = {"server_ttl": {"enabled": True, "full_deployments_seconds": 60, "max_servers": 2}}
A, B, C = ("prod", "a"), ("prod", "b"), ("prod", "c")
BRANCH = ("feature", "a")


def places(harbour_servers: list[object]) -> set[tuple[str, str]]:
    return {(s.deployment, s.location) for s in harbour_servers}  # type: ignore[attr-defined]


def harbour_of(tmp_path: Path, store: Store, **settings: object) -> Harbour:
    return make_harbour(fleet_config(tmp_path, **settings), store, Clock())


async def test_every_location_has_a_server_without_a_time_to_live(
    tmp_path: Path, store: Store, bells: Bells
) -> None:
    """The rule for full deployments: servers are there before anybody asks."""
    harbour = harbour_of(tmp_path, store)
    states = await harbour.reconcile(deployment("prod", entry("a"), entry("b")))
    assert places(list(await harbour.servers())) == {A, B}
    assert [state.place for state in states] == [A, B]
    assert await rings(bells.submit)


async def test_nothing_is_started_that_nobody_asked_for(tmp_path: Path, store: Store) -> None:
    """Scale to zero: known to the control plane, up to date, and without a server."""
    harbour = harbour_of(tmp_path, store, code_servers=TTL)
    assert await harbour.reconcile(deployment("prod", entry("a"))) == []
    assert await harbour.servers() == []
    stopped = await store.run(lambda db: meta.get(db, "stopped_locations"))
    assert json.loads(str(stopped)) == [["prod", "a"]]


async def test_outdated_location_is_brought_up_to_upload_it(tmp_path: Path, store: Store) -> None:
    """Without a snapshot the control plane could not even show it."""
    harbour = harbour_of(tmp_path, store, code_servers=TTL)
    outdated = deployment("prod", entry("a", hasOutdatedData=True), entry("b"))
    await harbour.reconcile(outdated)
    assert places(list(await harbour.servers())) == {A}
    await harbour.serve(A)
    harbour.clock.now += 61
    await harbour.reconcile(deployment("prod", entry("a"), entry("b")))
    assert await harbour.servers() == []


async def test_request_starts_a_stopped_server_and_is_answered_by_it(
    tmp_path: Path, store: Store, bells: Bells
) -> None:
    """The caller waits, the workspace loop is woken, and the server stays for its time."""
    harbour = harbour_of(tmp_path, store, code_servers=TTL)
    prod = deployment("prod", entry("a"))
    await harbour.reconcile(prod)

    async def ask() -> object:
        async with harbour.calls.use(A, is_branch=False, wait_seconds=30) as client:
            return client

    asking = asyncio.create_task(ask())
    await harbour.asked_for.wait()
    await harbour.reconcile(prod)
    server = await harbour.serve(A)
    assert await asking is harbour.channels.client(server.key)
    await harbour.channels.close()

    harbour.clock.now += 59
    await harbour.reconcile(prod)
    assert places(list(await harbour.servers())) == {A}
    harbour.clock.now += 2
    await harbour.reconcile(prod)
    assert await harbour.servers() == []
    assert await rings(bells.cancel)


async def test_request_without_a_server_in_time_says_how_it_stands(
    tmp_path: Path, store: Store
) -> None:
    """Within the caller's deadline, in words that name the job."""
    harbour = harbour_of(tmp_path, store)
    await harbour.reconcile(deployment("prod", entry("a")))
    with pytest.raises(CodeServerUnavailableError, match="a is not up: waiting to be submitted"):
        async with harbour.calls.use(A, is_branch=False, wait_seconds=0):
            pass


async def test_unknown_location_is_told_at_once(tmp_path: Path, store: Store) -> None:
    """Nobody waits for what will never come."""
    harbour = harbour_of(tmp_path, store)
    await harbour.reconcile(deployment("prod", entry("a")))
    with pytest.raises(CodeServerError, match="no code location prod/nowhere"):
        async with harbour.calls.use(("prod", "nowhere"), is_branch=False, wait_seconds=30):
            pass


async def test_server_that_waits_in_the_queue_outlasts_its_time(
    tmp_path: Path, store: Store
) -> None:
    """A time to live shorter than the queue would mean that it never serves."""
    harbour = harbour_of(tmp_path, store, code_servers=TTL)
    prod = deployment("prod", entry("a"))
    harbour.demand.note(A, is_branch=False)
    await harbour.reconcile(prod)
    harbour.clock.now += 3600
    await harbour.reconcile(prod)
    server = await harbour.serve(A)
    harbour.demand.note(A, is_branch=False)
    await harbour.reconcile(prod)
    assert [s.key for s in await harbour.servers()] == [server.key]


async def test_more_servers_than_allowed_stop_the_least_recently_used(
    tmp_path: Path, store: Store
) -> None:
    """Before its time."""
    harbour = harbour_of(tmp_path, store, code_servers=TTL)
    prod = deployment("prod", entry("a"), entry("b"), entry("c"))
    for place in (A, B, C):
        harbour.clock.now += 1
        harbour.demand.note(place, is_branch=False)
        await harbour.reconcile(prod)
        await harbour.serve(place)
    await harbour.reconcile(prod)
    assert places(list(await harbour.servers())) == {B, C}


async def test_branch_deployment_has_servers_on_demand_only(tmp_path: Path, store: Store) -> None:
    """Its deployment is asked for when somebody wants something of it, not before."""
    harbour = harbour_of(tmp_path, store, control_plane={"branch_deployments": True})
    branch = deployment("feature", entry("a"), entry("b"), is_branch=True)
    prod = deployment("prod", entry("a"))
    await harbour.reconcile(prod, branch)
    assert places(list(await harbour.servers())) == {A}
    assert harbour.fleet.deployments() == ["prod"]

    harbour.demand.note(BRANCH, is_branch=True)
    await harbour.reconcile(prod, branch)
    assert places(list(await harbour.servers())) == {A, BRANCH}
    assert harbour.fleet.deployments() == ["prod", "feature"]

    await harbour.serve(BRANCH)
    harbour.clock.now += 24 * 3600 + 1
    await harbour.reconcile(prod, branch)
    assert places(list(await harbour.servers())) == {A}


async def test_check_brings_up_the_outdated_locations_of_a_branch_deployment(
    tmp_path: Path, store: Store
) -> None:
    """Those and no others; an agent that restarts in between does it all the same."""
    harbour = harbour_of(tmp_path, store, control_plane={"branch_deployments": True})
    harbour.demand.check("feature")
    await harbour.fleet.remember()
    again = harbour_of(tmp_path, store, control_plane={"branch_deployments": True})
    await again.fleet.recall()
    await again.reconcile(
        deployment("feature", entry("a", hasOutdatedData=True), entry("b"), is_branch=True)
    )
    assert places(list(await again.servers())) == {BRANCH}
    assert again.demand.checks() == set()


async def test_agent_of_branch_deployments_alone_serves_no_full_one(
    tmp_path: Path, store: Store
) -> None:
    """Without demand there is nothing to ask the control plane."""
    settings = {"deployments": [], "branch_deployments": True}
    harbour = harbour_of(tmp_path, store, control_plane=settings)
    assert (await harbour.fleet.question()).deployments == []
    assert await harbour.reconcile() == []


async def test_location_that_is_not_allowed_gets_no_server(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says once which list leaves it out, and what to do."""
    harbour = harbour_of(tmp_path, store, allowed_full_deployment_locations={"prod": ["b"]})
    for _ in range(2):
        await harbour.reconcile(deployment("prod", entry("a"), entry("b")))
    assert places(list(await harbour.servers())) == {B}
    told = [r.getMessage() for r in caplog.records if "allowed_full_deployment" in r.getMessage()]
    assert len(told) == 1
    assert "a in deployment prod" in told[0]


async def test_new_version_serves_beside_the_old_one_until_it_is_up(
    tmp_path: Path, store: Store
) -> None:
    """Nobody is without a server during a deploy."""
    harbour = harbour_of(tmp_path, store)
    await harbour.reconcile(deployment("prod", entry("a")))
    old = await harbour.serve(A)
    await harbour.reconcile(deployment("prod", entry("a", version=2.0)))
    assert len(await harbour.servers()) == 2
    async with harbour.calls.use(A, is_branch=False, wait_seconds=0) as client:
        assert client is harbour.channels.client(old.key)
        new = await harbour.serve(A)
    assert [s.key for s in await harbour.servers()] == [new.key]
    worker = await store.run(lambda db: workers.get(db, old.key))
    assert worker.terminate_at == harbour.clock.now + DRAIN_SECONDS  # it was in use
    await harbour.channels.close()


async def test_failed_code_is_not_started_again_before_the_next_deploy(
    tmp_path: Path, store: Store
) -> None:
    """An error of user code does not go away by itself, a failed job may."""
    harbour = harbour_of(tmp_path, store)
    prod = deployment("prod", entry("a"), entry("b"))
    await harbour.reconcile(prod)
    broken, unlucky = await harbour.servers()
    await harbour.life.mark_failed(broken, '{"message": "no"}', restart=False)
    await harbour.life.mark_failed(unlucky, '{"message": "node"}')
    harbour.clock.now += 5
    await harbour.reconcile(prod)
    servers = {s.location: s for s in await harbour.servers()}
    assert servers["a"].key == broken.key
    assert servers["b"].status is ServerStatus.STARTING
    await harbour.reconcile(deployment("prod", entry("a", version=2.0), entry("b")))
    assert (await harbour.fleet.servers_of(A))[-1].key != broken.key


async def test_next_request_tries_a_failed_location_again_after_its_time(
    tmp_path: Path, store: Store
) -> None:
    """A stopped location starts anew, whatever became of its last server."""
    harbour = harbour_of(tmp_path, store, code_servers=TTL)
    prod = deployment("prod", entry("a"))
    harbour.demand.note(A, is_branch=False)
    await harbour.reconcile(prod)
    (server,) = await harbour.servers()
    await harbour.life.mark_failed(server, '{"message": "no"}', restart=False)
    harbour.clock.now += 61
    await harbour.reconcile(prod)
    assert await harbour.servers() == []
    harbour.demand.note(A, is_branch=False)
    await harbour.reconcile(prod)
    assert [s.status for s in await harbour.servers()] == [ServerStatus.STARTING]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (
            {"pex_metadata": {"pex_tag": "x"}, "python_file": "d.py"},
            "PEX deploys are not supported",
        ),
        ({"image": "registry/team:1"}, "container image registry/team:1"),
        ({"python_file": "d.py"}, "not known which Python"),
    ],
)
async def test_location_that_cannot_run_here_says_why(
    tmp_path: Path, store: Store, metadata: dict[str, object], words: str
) -> None:
    """Nothing is submitted, and the location shows what to do."""
    config = fleet_config(tmp_path, environment={"python": None})
    harbour = make_harbour(config, store, Clock())
    text = json.dumps({"__class__": "CodeDeploymentMetadata", **metadata})
    (state,) = await harbour.reconcile(
        deployment("prod", entry("a", serializedDeploymentMetadata=text))
    )
    assert state.worker is not None
    assert state.worker.phase is Phase.REFUSED
    assert words in state.worker.message
    (heartbeat,) = server_heartbeats([state], "prod")
    assert words in heartbeat["metadata"]["message"]
