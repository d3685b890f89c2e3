"""From a server's first connection to its definitions being there, whatever fails in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.agent.workspace import WorkspaceLoop
from hpc_agent.code_servers.bring_up import BringUp
from hpc_agent.store import code_servers
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from tests.agent.conftest import Bench
from tests.agent.gateway import ScriptedGateway
from tests.code_servers.conftest import Harbour, deployment, entry, make_harbour
from tests.code_servers.peers import Plane, UserCode, code_server, uploads_to

pytestmark = pytest.mark.filterwarnings("ignore")
A = ("prod", "a")
ERROR = '{"__class__": "SerializableErrorInfo", "message": "no", "stack": [], "cls_name": null}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Berthing:
    """A server that has just dialled in, and what brings it up."""

    bench: Bench
    harbour: Harbour
    plane: Plane
    gateway: ScriptedGateway
    user_code: UserCode
    bring_up: BringUp

    async def server(self) -> CodeServer:
        return (await self.harbour.fleet.servers_of(A))[-1]

    async def deploy(self, python_file: str, *, version: float) -> CodeServer:
        """Let another version of the location come, whose server dials in at once."""
        metadata = json.dumps({"__class__": "CodeDeploymentMetadata", "python_file": python_file})
        new = entry("a", version=version, serializedDeploymentMetadata=metadata)
        await self.harbour.reconcile(deployment("prod", new))
        return await self.server()

    async def status(self, server: CodeServer) -> ServerStatus:
        """Return how a server stands, also when it counts no more."""
        found = await self.bench.context.store.run(lambda db: code_servers.find(db, server.key))
        assert found is not None
        return found.status


def in_loop(work: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[], object]:
    """Return what lets a thread do it in this loop, and wait for it."""
    loop = asyncio.get_running_loop()
    return lambda: asyncio.run_coroutine_threadsafe(work(), loop).result(10)


@asynccontextmanager
async def berthing(bench: Bench, directory: Path, user_code: UserCode) -> AsyncIterator[Berthing]:
    context = bench.context
    harbour = make_harbour(context.config, context.store, bench.clock, context.preparation)
    await harbour.reconcile(deployment("prod", entry("a")))
    plane = Plane()
    async with uploads_to(plane) as (uploads, gateway), code_server(directory, user_code):
        harbour.tunnels.socket = directory / "server.sock"
        bring_up = BringUp(
            settings=context.config.code_servers,
            store=context.store,
            uploads=uploads,
            life=harbour.life,
            channels=harbour.channels,
            tunnels=harbour.tunnels,
            clock=bench.clock,
        )
        yield Berthing(
            bench=bench,
            harbour=harbour,
            plane=plane,
            gateway=gateway,
            user_code=user_code,
            bring_up=bring_up,
        )
        await harbour.channels.close()


async def test_server_serves_when_its_definitions_are_uploaded(
    bench: Bench, tmp_path: Path
) -> None:
    """Not a moment before."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        await at.bring_up.run(await at.server())
        assert (await at.server()).status is ServerStatus.SERVING
        assert len(at.plane.results) == 2


@pytest.mark.parametrize("who", ["code server", "control plane"])
async def test_one_failure_that_passes_leaves_no_error_behind(
    bench: Bench, tmp_path: Path, who: str
) -> None:
    """dagster #34189: it is tried again before anybody is told."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        (at.user_code if who == "code server" else at.plane).failures = 1
        await at.bring_up.run(await at.server())
        assert (await at.server()).status is ServerStatus.SERVING
        assert not any('error_snapshot": {' in result for result in at.plane.results)


async def test_error_of_user_code_is_told_at_once(bench: Bench, tmp_path: Path) -> None:
    """It does not go away by waiting."""
    async with berthing(bench, tmp_path, UserCode(listing=ERROR)) as at:
        await at.bring_up.run(await at.server())
        assert (await at.server()).status is ServerStatus.FAILED
        assert list(at.plane.stored.values()) == [ERROR]


async def test_server_that_is_too_slow_is_given_up_in_words(bench: Bench, tmp_path: Path) -> None:
    """The location shows how long it was waited for, and the job."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        at.harbour.tunnels.socket = None
        server = await at.server()
        await at.harbour.let_run(server.key, started_at=bench.clock.now, job_id="7")
        bench.clock.now += 301
        await at.bring_up.run(server)
        (told,) = at.plane.stored.values()
        assert "did not answer within 300 s (job 7, RUNNING" in told


async def test_time_without_an_agent_is_not_held_against_a_server(
    bench: Bench, tmp_path: Path
) -> None:
    """Its job ran on while nobody was there to be answered: it is waited for anew."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        socket, at.harbour.tunnels.socket = at.harbour.tunnels.socket, None
        server = await at.server()
        await at.harbour.let_run(server.key, started_at=bench.clock.now - 3600, job_id="7")
        bringing = asyncio.create_task(at.bring_up.run(server))
        done, _ = await asyncio.wait([bringing], timeout=1)
        assert not done
        at.harbour.tunnels.socket = socket
        await bringing
        assert (await at.server()).status is ServerStatus.SERVING


async def test_server_that_has_answered_waits_for_the_control_plane(
    bench: Bench, tmp_path: Path
) -> None:
    """However long that is away: neither it nor the version before it is ended."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        old = await at.harbour.serve(A)
        await at.harbour.reconcile(deployment("prod", entry("a", version=2.0)))
        new = await at.server()
        await at.harbour.let_run(new.key, started_at=bench.clock.now, job_id="7")
        bench.clock.now += 301
        at.plane.failures = 1
        bringing = asyncio.create_task(at.bring_up.run(new))
        done, _ = await asyncio.wait([bringing], timeout=1)
        assert not done
        found = {each.key: each.status for each in await at.harbour.servers()}
        assert found == {old.key: ServerStatus.SERVING, new.key: ServerStatus.STARTING}
        assert "cannot be uploaded: " in at.harbour.life.notes[A]
        at.harbour.tunnels.socket, socket = None, at.harbour.tunnels.socket
        await asyncio.wait([bringing], timeout=3)
        at.harbour.tunnels.socket = socket
        await bringing
        assert (await at.server()).status is ServerStatus.SERVING
        assert A not in at.harbour.life.notes


async def test_error_that_the_control_plane_shows_of_a_serving_location_is_corrected(
    bench: Bench, tmp_path: Path
) -> None:
    """Without a human: the definitions are sent again, at once and then ever more rarely."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        await at.bring_up.run(await at.server())
        before = len(at.plane.results)
        wrong = {
            "deploymentName": "prod",
            "isBranchDeployment": False,
            "workspaceEntries": [entry("a", hasLoadError=True).model_dump(by_alias=True)],
        }
        bench.control_plane.answer = {"data": {"deployments": [wrong]}}
        tasks = bench.context.tasks
        loop = WorkspaceLoop(bench.context, at.harbour.fleet, at.bring_up)
        for _ in range(3):
            await loop.step()
            await tasks.finish()
        assert len(at.plane.results) == before + 1
        bench.clock.now += 15
        await loop.step()
        await tasks.finish()
        assert len(at.plane.results) == before + 2


async def test_location_that_failed_here_and_shows_nothing_there_is_told_again(
    bench: Bench, tmp_path: Path
) -> None:
    """The control plane may have lost it, with its database."""
    async with berthing(bench, tmp_path, UserCode(listing=ERROR)) as at:
        await at.bring_up.run(await at.server())
        before = len(at.plane.results)
        shown = {
            "deploymentName": "prod",
            "isBranchDeployment": False,
            "workspaceEntries": [entry("a").model_dump(by_alias=True)],
        }
        bench.control_plane.answer = {"data": {"deployments": [shown]}}
        tasks = bench.context.tasks
        await WorkspaceLoop(bench.context, at.harbour.fleet, at.bring_up).step()
        await tasks.finish()
        assert len(at.plane.results) == before + 1


async def test_server_that_is_not_wanted_any_more_is_not_brought_up(
    bench: Bench, tmp_path: Path
) -> None:
    """A deploy in between: the newer one comes up, this one goes."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        server = await at.server()
        await at.harbour.life.retire(server)
        async with asyncio.timeout(30):
            await at.bring_up.run(server)
        found = await bench.context.store.run(lambda db: code_servers.find(db, server.key))
        assert found == replace(server, status=ServerStatus.RETIRED)
        assert at.plane.results == []


async def test_server_that_is_replaced_while_it_uploads_stays_so(
    bench: Bench, tmp_path: Path
) -> None:
    """Its definitions came last: those of its successor are sent once more."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        old = await at.deploy("old.py", version=2.0)
        bench.clock.now += 1
        new = await at.deploy("new.py", version=3.0)
        at.plane.meanwhile = {2: in_loop(lambda: at.harbour.life.mark_serving(new))}
        await at.bring_up.run(old)
        assert await at.status(old) is ServerStatus.RETIRED
        assert await at.status(new) is ServerStatus.SERVING
        assert "old.py" in at.plane.results[1]
        assert "new.py" in at.plane.results[2]
        assert len(at.plane.results) == 3


async def test_server_that_is_replaced_before_it_has_sent_all_sends_no_more(
    bench: Bench, tmp_path: Path
) -> None:
    """The control plane has not taken its definitions, so nothing is to be mended."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        old = await at.deploy("old.py", version=2.0)
        bench.clock.now += 1
        new = await at.deploy("new.py", version=3.0)
        at.plane.meanwhile = {1: in_loop(lambda: at.harbour.life.mark_serving(new))}
        await at.bring_up.run(old)
        assert await at.status(old) is ServerStatus.RETIRED
        assert len(at.plane.results) == 1


async def test_of_two_servers_that_upload_at_once_the_newer_one_has_the_last_word(
    bench: Bench, tmp_path: Path
) -> None:
    """Also where the older one was the first to be done: its definitions may have come last."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        old = await at.deploy("old.py", version=2.0)
        bench.clock.now += 1
        new = await at.deploy("new.py", version=3.0)
        at.plane.meanwhile = {2: in_loop(lambda: at.bring_up.run(old))}
        await at.bring_up.run(new)
        assert await at.status(old) is ServerStatus.RETIRED
        assert await at.status(new) is ServerStatus.SERVING
        assert [("new.py" in each) for each in at.plane.results] == [True, True, False, True]


async def test_error_of_a_server_that_was_replaced_is_told_no_more(
    bench: Bench, tmp_path: Path
) -> None:
    """It would take the place of the definitions of its successor."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        server = await at.server()
        await at.harbour.life.mark_failed(server, ERROR, restart=False)
        at.plane.failures = 1
        telling = asyncio.create_task(at.bring_up.tell_error(server, ERROR))
        done, _ = await asyncio.wait([telling], timeout=1)
        assert not done
        await at.harbour.life.retire(server)
        async with asyncio.timeout(30):
            await telling
        assert at.plane.results == []


async def test_server_whose_job_ends_as_it_begins_to_serve_is_replaced(
    bench: Bench, tmp_path: Path
) -> None:
    """Whichever of the two is noted first."""
    async with berthing(bench, tmp_path, UserCode()) as at:
        server = await at.server()
        worker = await bench.job(server.key)
        await asyncio.gather(
            at.harbour.life.worker_over(worker), at.harbour.life.mark_serving(server)
        )
        assert await at.status(server) in {ServerStatus.RETIRED, ServerStatus.FAILED}
