"""Every kind of request gets the answer that the protocol wants, and late ones get theirs."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from hpc_agent.agent.serve import ServeLoop
from hpc_agent.runs.worker_plan import run_key
from hpc_agent.store import inbox, outbox, workers
from hpc_agent.store.inbox import Request
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from tests.agent.conftest import Bench
from tests.agent.test_submit import conclude
from tests.code_servers.conftest import Harbour, make_harbour
from tests.journal.lines import written_lines
from tests.workers import a_worker, put

ORIGIN = {
    "__class__": "ExternalPipelineOrigin",
    "external_repository_origin": {"repository_location_origin": {"location_name": "here"}},
}
RUN = {
    "__class__": "PipelineRun",
    "run_id": "r1",
    "pipeline_name": "j",
    "external_pipeline_origin": ORIGIN,
    "pipeline_code_origin": {"repository_origin": {"executable_path": "/py"}},
}
SOON = 60.0
LATE = -1.0


class Server:
    """A serve loop, requests put into it and the answers that come out."""

    def __init__(self, bench: Bench, harbour: Harbour) -> None:
        self.bench = bench
        self.harbour = harbour
        self.tasks = bench.context.tasks
        self.loop = ServeLoop(
            bench.context,
            fleet=harbour.fleet,
            calls=harbour.calls,
            demand=harbour.demand,
        )

    async def ask(
        self,
        api: str,
        args: Any = None,
        *,
        left: float | None = SOON,
        is_branch: bool = False,
        body: str | None = None,
    ) -> dict[str, Any] | None:
        """Put a request in and return its response, None when there is none yet."""
        await self.put(api, args, left=left, is_branch=is_branch, body=body)
        await self.loop.step()
        await self.tasks.finish()
        answers = await self.bench.messages(outbox.RESPONSE)
        return json.loads(answers[-1])["response"] if answers else None

    async def put(
        self,
        api: str,
        args: Any = None,
        *,
        left: float | None = SOON,
        is_branch: bool = False,
        body: str | None = None,
        request_id: str = "q",
    ) -> None:
        """Put a request in."""
        expire_at = None if left is None else self.bench.clock.now + left
        body = body or json.dumps({"request_args": args, "expire_at": expire_at})
        request = Request(request_id, api, body, "prod", is_branch, self.bench.clock.now)
        store = self.bench.context.store
        await store.run(lambda db: inbox.receive(db, [request]))

    async def job(self) -> Worker | None:
        return await self.bench.context.store.run(lambda db: workers.find(db, run_key("r1")))

    def run_has_status(self, status: str | None) -> None:
        """What the control plane says of the run from now on."""
        run = status and json.dumps({"status": {"__enum__": f"PipelineRunStatus.{status}"}})
        self.bench.control_plane.answer = {"data": {"runs": {"getRunById": run}}}


def harbour_of(bench: Bench) -> Harbour:
    context = bench.context
    return make_harbour(context.config, context.store, bench.clock, context.preparation)


@pytest.fixture
async def server(bench: Bench) -> AsyncIterator[Server]:
    harbour = harbour_of(bench)
    yield Server(bench, harbour)
    await harbour.channels.close()


def words(response: dict[str, Any] | None) -> str:
    assert response is not None
    assert response["__class__"] == "DagsterCloudApiErrorResponse"
    return str(response["error_infos"][0]["message"])


def succeeded(response: dict[str, Any] | None) -> bool:
    return response is not None and response["__class__"] == "DagsterCloudApiSuccess"


async def test_unknown_request_is_answered_as_such(server: Server) -> None:
    """Whatever its body is: the control plane is newer than this agent."""
    answer = await server.ask("MAKE_COFFEE", body="coffee")
    assert answer is not None
    assert answer["__class__"] == "DagsterCloudApiUnknownCommandResponse"
    assert answer["request_api"] == "MAKE_COFFEE"


@pytest.mark.parametrize(
    "api",
    ["CHECK_RUN_HEALTH", "LAUNCH_STEP", "CHECK_STEP_HEALTH", "TERMINATE_STEP", "LOAD_REPOSITORIES"],
)
async def test_deprecated_request_is_refused_in_words(server: Server, api: str) -> None:
    """Not unknown: the protocol has it, and nobody carries it out."""
    assert f"{api} is deprecated" in words(await server.ask(api, {}))


async def test_request_that_cannot_be_read_is_answered(server: Server) -> None:
    """An unanswered one would be handed out again for ever."""
    request = Request("q", "PING_LOCATION", "not JSON", "prod", False, 0.0)
    await server.bench.context.store.run(lambda db: inbox.receive(db, [request]))
    await server.loop.step()
    await server.tasks.finish()
    assert len(await server.bench.messages(outbox.RESPONSE)) == 1


async def test_expired_request_is_not_carried_out(server: Server) -> None:
    """Nobody waits for it any more."""
    args = {"repository_origin": {"repository_location_origin": {"location_name": "here"}}}
    answer = await server.ask("GET_EXTERNAL_PARTITION_NAMES", args, left=LATE)
    assert "has expired" in words(answer)
    (told,) = server.bench.context.errors.packed(server.bench.clock.now)
    assert "has expired" in str(told["error"])
    assert not server.harbour.asked_for.is_set()


async def test_request_waits_for_its_server_until_it_expires(server: Server) -> None:
    """The explanation is there before the caller has gone."""
    args = {"repository_origin": {"repository_location_origin": {"location_name": "here"}}}
    answer = await server.ask("GET_EXTERNAL_PARTITION_NAMES", args, left=2.0)
    assert "no code server of here yet" in words(answer)


async def test_location_that_is_not_allowed_is_refused(bench: Bench) -> None:
    """With the stock agent's advice."""
    config = bench.context.config.model_copy(
        update={"allowed_branch_deployment_locations": ["other"]}
    )
    limited = replace(bench, context=replace(bench.context, config=config))
    server = Server(limited, harbour_of(limited))
    answer = await server.ask("PING_LOCATION", {"location_name": "here"}, is_branch=True)
    assert "may not serve code location here for branch deployments" in words(answer)


async def test_ping_keeps_a_server(bench: Bench) -> None:
    """Nothing else happens."""
    harbour = harbour_of(bench)
    answer = await Server(bench, harbour).ask(
        "PING_LOCATION", {"location_name": "here"}, is_branch=True
    )
    assert succeeded(answer)
    assert harbour.demand.wanted() == {("prod", "here")}


async def test_workspace_check_outlives_the_agent(server: Server) -> None:
    """Answered when it cannot be forgotten any more."""
    assert succeeded(await server.ask("CHECK_FOR_WORKSPACE_UPDATES"))
    again = harbour_of(server.bench)
    await again.fleet.recall()
    assert again.demand.checks() == {"prod"}


async def test_misspelled_tag_is_told_in_the_log_of_the_run(server: Server) -> None:
    """It would be ignored in silence otherwise."""
    run = {**RUN, "tags": {"dagster-hpc/partiton": "gpu"}}
    await server.ask("LAUNCH_RUN", {"pipeline_run": run})
    (event,) = await server.bench.messages(outbox.EVENT)
    assert "'dagster-hpc/partiton' means nothing to the agent" in event
    assert "did you mean dagster-hpc/partition?" in event


async def test_lines_about_a_request_carry_its_ids(server: Server) -> None:
    """Also those about a request that nobody can read."""
    args = {"repository_origin": {"repository_location_origin": {"location_name": "here"}}}
    with written_lines() as lines:
        await server.put("GET_EXTERNAL_PARTITION_NAMES", args, left=LATE, request_id="late")
        await server.put("MAKE_COFFEE", body="coffee", request_id="coffee")
        await server.loop.step()
        await server.tasks.finish()
    about = {entry["request_id"]: entry for entry in lines.entries if "request_id" in entry}
    assert about["late"].items() >= {"location": "here", "deployment": "prod"}.items()
    assert about["coffee"]["deployment"] == "prod"
    assert "location" not in about["coffee"]


async def test_launch_in_time_asks_nobody(server: Server) -> None:
    """The fast way: an intent, and no round trip."""
    assert await server.ask("LAUNCH_RUN", {"pipeline_run": RUN}) is None
    job = await server.job()
    assert job is not None
    assert job.phase is Phase.INTENT
    assert server.bench.control_plane.requests == []


@pytest.mark.parametrize("status", ["STARTING", "QUEUED", "NOT_STARTED"])
async def test_late_launch_of_a_run_that_waits_is_carried_out(server: Server, status: str) -> None:
    """The run would be lost otherwise."""
    server.run_has_status(status)
    assert await server.ask("LAUNCH_RUN", {"pipeline_run": RUN}, left=LATE) is None
    assert (await server.job()) is not None


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "CANCELED", "STARTED", None])
async def test_late_launch_of_a_run_that_is_over_starts_nothing(
    server: Server, status: str | None
) -> None:
    """Finished, deleted, or taken by another agent: success, and no job."""
    server.run_has_status(status)
    assert succeeded(await server.ask("LAUNCH_RUN", {"pipeline_run": RUN}, left=LATE))
    assert await server.job() is None


async def test_late_launch_of_a_run_that_is_canceling_cancels_it(server: Server) -> None:
    """Nobody else would: no worker is there to do it."""
    server.run_has_status("CANCELING")
    assert succeeded(await server.ask("LAUNCH_RUN", {"pipeline_run": RUN}, left=LATE))
    job = await server.job()
    assert job is not None
    assert (job.phase, job.terminate_at) == (Phase.WITHDRAWN, server.bench.clock.now)


async def test_late_launch_waits_for_a_control_plane_that_is_away(server: Server) -> None:
    """Nothing is known, so nothing is answered until it is."""
    server.bench.control_plane.status = 503
    with written_lines() as lines:
        await server.put("LAUNCH_RUN", {"pipeline_run": RUN}, left=LATE)
        await server.loop.step()
        while not any(" waits: " in entry["message"] for entry in lines.entries):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert lines.entries[-1].items() >= {"request_id": "q", "run_id": "r1"}.items()
    assert await server.job() is None
    assert await server.bench.messages(outbox.RESPONSE) == []
    server.bench.control_plane.status = 200
    server.run_has_status("STARTING")
    await server.tasks.finish()
    assert await server.job() is not None


async def test_late_termination_of_a_finished_run_does_nothing(server: Server) -> None:
    """No word more in its log."""
    server.run_has_status("SUCCESS")
    assert succeeded(await server.ask("TERMINATE_RUN", {"pipeline_run": RUN}, left=LATE))
    assert await server.job() is None


async def test_late_termination_of_a_run_that_goes_on_ends_it(server: Server) -> None:
    """Whoever pressed the button meant it."""
    job = a_worker(
        key=run_key("r1"),
        kind=WorkerKind.RUN_WORKER,
        phase=Phase.QUEUED,
        deployment="prod",
        location="here",
        run_id="r1",
        job_id="7",
        created_at=1.0,
    )
    await server.bench.context.store.run(lambda db: put(db, job))
    server.run_has_status("STARTED")
    assert succeeded(await server.ask("TERMINATE_RUN", {"pipeline_run": RUN}, left=LATE))
    after = await server.job()
    assert after is not None
    assert after.terminate_at is not None


@pytest.mark.parametrize(("status", "told"), [("STARTED", 1), ("CANCELING", 0)])
async def test_termination_makes_the_run_canceling(server: Server, status: str, told: int) -> None:
    """As the stock agent does; a run that is so already is not told twice."""
    await server.ask("LAUNCH_RUN", {"pipeline_run": RUN})
    run = {**RUN, "status": {"__enum__": f"DagsterRunStatus.{status}"}}
    request = Request(
        "end",
        "TERMINATE_RUN",
        json.dumps({"request_args": {"pipeline_run": run}}),
        "prod",
        False,
        1.0,
    )
    await server.bench.context.store.run(lambda db: inbox.receive(db, [request]))
    await server.loop.step()
    await server.tasks.finish()
    events = await server.bench.messages(outbox.EVENT)
    assert sum("PIPELINE_CANCELING" in event for event in events) == told


async def test_deadlines_are_by_the_control_planes_clock(server: Server) -> None:
    """A login node whose clock is wrong does not lose every request."""
    api = server.bench.context.api
    server.bench.clock.now = 5_000.0
    await api.graphql("{ ok }", {})  # its Date header tells the real time
    assert api.server_time(1.0) > 0
    assert "DagsterCloudApiErrorResponse" not in str(
        await server.ask("PING_LOCATION", {"location_name": "here"}, left=SOON)
    )


async def test_termination_in_the_same_poll_ends_the_launch(server: Server) -> None:
    """Whatever the order in which their tasks would have run: the run is canceled, not lost."""
    run = {**RUN, "status": {"__enum__": "DagsterRunStatus.CANCELING"}}
    await server.put("LAUNCH_RUN", {"pipeline_run": RUN}, request_id="launch")
    await server.put("TERMINATE_RUN", {"pipeline_run": run}, request_id="end")
    await server.loop.step()
    await server.tasks.finish()
    worker = await server.job()
    assert worker is not None
    assert (worker.phase, worker.request_id) == (Phase.WITHDRAWN, "launch")
    server.run_has_status("CANCELING")
    await conclude(server.bench)
    answers = await server.bench.messages(outbox.RESPONSE)
    assert {json.loads(answer)["request_id"] for answer in answers} == {"launch", "end"}
    assert "PIPELINE_CANCELED" in str(await server.bench.messages(outbox.EVENT))


async def test_launch_that_cannot_be_written_waits_and_its_run_says_so(server: Server) -> None:
    """The work directory is away for a while: no run fails for it."""
    work = server.bench.context.preparation.work
    shutil.rmtree(work.jobs)
    work.jobs.symlink_to("/proc/1/fdinfo/nowhere")
    await server.put("LAUNCH_RUN", {"pipeline_run": RUN})
    await server.loop.step()
    while not (events := await server.bench.messages(outbox.EVENT)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert "The launch of the run waits" in events[0]
    assert await server.bench.messages(outbox.RESPONSE) == []
    work.jobs.unlink()
    await asyncio.to_thread(work.make)
    await server.tasks.finish()
    worker = await server.job()
    assert worker is not None
    assert worker.phase is Phase.INTENT
    assert len(await server.bench.messages(outbox.EVENT)) == 1


async def test_launch_that_has_become_a_worker_is_not_served_again(server: Server) -> None:
    """Five thousand that wait cost nothing at the next ring."""
    await server.ask("LAUNCH_RUN", {"pipeline_run": RUN})
    assert await server.bench.context.store.run(inbox.to_serve) == []
    assert await server.bench.context.store.run(lambda db: inbox.is_open(db, "q"))
