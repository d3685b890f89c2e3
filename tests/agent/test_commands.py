"""What operators ask of a running agent: to end runs, to hold a location back, to drain."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from sqlite_utils import Database

from hpc_agent.agent.commands import CommandsLoop
from hpc_agent.agent.loop import repeat
from hpc_agent.agent.poll import PollLoop
from hpc_agent.doorbell import answered
from hpc_agent.errors import HpcAgentError
from hpc_agent.inspection.operate import cancel, carry_out
from hpc_agent.store import code_servers, commands, meta, outbox, pauses, submissions, workers
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.commands import CommandKind
from hpc_agent.store.draining import Drain
from hpc_agent.store.pauses import Pause
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Bench

PLACE = {"location": "here", "deployment": ""}


@pytest.fixture
async def loop(bench: Bench) -> CommandsLoop:
    await bench.context.store.run(lambda db: meta.take_lease(db, "test", time.time()))
    return CommandsLoop(bench.context)


async def asked(bench: Bench, loop: CommandsLoop, kind: CommandKind, **subject: object) -> str:
    """Ask as the command does, and let the loop look once it is written down."""
    call = asyncio.create_task(asyncio.to_thread(carry_out, bench.context.config, kind, subject))
    await looks_until(bench, loop, call)
    return await call


async def looks_until(bench: Bench, loop: CommandsLoop, call: asyncio.Task[str]) -> None:
    while not call.done():
        await loop.step()
        await asyncio.sleep(0.02)


async def due(bench: Bench) -> list[str]:
    now = bench.clock.now
    return await bench.context.store.run(lambda db: submissions.single(db, now))


async def test_run_is_canceled_by_an_operator(bench: Bench, loop: CommandsLoop) -> None:
    """By the beginning of its id; its log says who did it, and it is asked once."""
    await bench.add("run-1", run_id="0a1b2c3d-1", phase=Phase.RUNNING, job_id="7", started_at=1.0)
    for said in ("is asked to end", "is asked to end"):
        call = asyncio.create_task(asyncio.to_thread(cancel, bench.context.config, "0a1b2c3d"))
        await looks_until(bench, loop, call)
        assert said in await call
    worker = await bench.job()
    assert worker.terminate_at is not None
    assert bench.scheduler.signalled == [("7", "INT")] * 2
    told = " ".join(await bench.messages(outbox.EVENT))
    assert told.count("An operator of the cluster ends the run") == 1


async def test_run_that_waits_is_withdrawn(bench: Bench, loop: CommandsLoop) -> None:
    """No job of it is ever made."""
    await bench.add("run-1")
    await asked(bench, loop, CommandKind.CANCEL, key="run-1")
    assert (await bench.job()).phase is Phase.WITHDRAWN


@pytest.mark.parametrize(
    ("status", "said", "kinds"),
    [
        ("STARTED", "run r is asked to end: job 7", {"PIPELINE_CANCELING"}),
        ("SUCCESS", "run r is SUCCESS; its job is asked to end: job 7", set()),
    ],
)
async def test_run_that_is_over_is_not_canceled_with_its_job(
    bench: Bench, loop: CommandsLoop, status: str, said: str, kinds: set[str]
) -> None:
    """Its job hangs as it ends."""
    run = json.dumps({"status": {"__enum__": f"DagsterRunStatus.{status}"}})
    bench.control_plane.answer = {"data": {"runs": {"getRunById": run}}}
    await bench.add("run-1", phase=Phase.RUNNING, job_id="7", run_id="r")
    assert (await asked(bench, loop, CommandKind.CANCEL, key="run-1")).startswith(said)
    assert bench.scheduler.signalled == [("7", "INT")]
    assert (await bench.job()).terminate_at is not None
    events = [json.loads(payload)["dagsterEvent"] for payload in await bench.messages("event")]
    told = {each["eventTypeValue"] for each in events} - {"ENGINE_EVENT"}
    assert told == kinds


async def test_step_is_canceled_by_an_operator(bench: Bench, loop: CommandsLoop) -> None:
    """Its run goes on."""
    await bench.add("runner", phase=Phase.RUNNING, job_id="1", run_id="r")
    await bench.add(
        "fit", kind=workers.WorkerKind.STEP, phase=Phase.RUNNING, job_id="2", run_id="r", step="fit"
    )
    said = await asked(bench, loop, CommandKind.CANCEL, key="fit")
    assert said.startswith("step fit of run r is asked to end: job 2")
    await bench.context.tasks.finish()
    assert bench.scheduler.signalled == [("2", "INT")]
    assert (await bench.job("runner")).terminate_at is None


async def test_code_server_is_not_canceled(bench: Bench, loop: CommandsLoop) -> None:
    """The agent would start another one at once: the message says what to do instead."""
    await bench.add("server", kind=workers.WorkerKind.CODE_SERVER, phase=Phase.RUNNING, job_id="9")
    with pytest.raises(HpcAgentError, match="control-plane deploy"):
        await asked(bench, loop, CommandKind.CANCEL, key="server")


async def test_runs_of_a_paused_location_wait(bench: Bench, loop: CommandsLoop) -> None:
    """Those that come later too, each says why, and other locations go on."""
    await bench.add("run-1")
    assert "1 do so now" in await asked(bench, loop, CommandKind.PAUSE, **PLACE)
    await bench.add("run-2")
    await bench.add("run-3", location="elsewhere")
    await bench.add("like-1", likeness="like")
    await loop.step()
    assert await due(bench) == ["run-3"]
    now = bench.clock.now
    alike = await bench.context.store.run(lambda db: submissions.due(db, now))
    taken = await bench.context.store.run(
        lambda db: submissions.take(db, "like", "arr", limit=9, now=now)
    )
    assert (alike, taken) == ([], [])
    assert "is paused by an operator since" in (await bench.job("run-2")).waits_for
    assert "was paused before" in await asked(bench, loop, CommandKind.PAUSE, **PLACE)


async def test_runs_of_a_resumed_location_are_submitted(bench: Bench, loop: CommandsLoop) -> None:
    """All that have waited."""
    await bench.add("run-1")
    await asked(bench, loop, CommandKind.PAUSE, **PLACE)
    await loop.step()
    assert "1 runs are to be submitted" in await asked(bench, loop, CommandKind.RESUME, **PLACE)
    assert await due(bench) == ["run-1"]
    with pytest.raises(HpcAgentError, match="here is not paused"):
        await asked(bench, loop, CommandKind.RESUME, **PLACE)


async def test_pause_of_one_deployment_holds_there_alone(bench: Bench, loop: CommandsLoop) -> None:
    """Another deployment may have a location of the same name."""
    await bench.add("run-1")
    await bench.add("run-2", deployment="staging")
    await asked(bench, loop, CommandKind.PAUSE, location="here", deployment="prod")
    assert await due(bench) == ["run-2"]


async def test_agent_that_drains_polls_no_more(bench: Bench, loop: CommandsLoop) -> None:
    """Until it is told to take requests again; a start in between changes nothing."""
    poll = PollLoop(bench.context)
    said = await asked(bench, loop, CommandKind.DRAIN, stop=False)
    assert said == "nothing new is taken; to be finished: nothing"
    await poll.step()
    assert bench.control_plane.requests == []
    assert (await bench.context.store.run(Drain().recall)).is_on
    await asked(bench, loop, CommandKind.ACCEPT)
    bench.control_plane.answer = {"data": {"userCloudAgent": {"popUserCloudAgentRequests": []}}}
    await poll.step()
    assert bench.control_plane.requests != []
    assert not (await bench.context.store.run(Drain().recall)).is_on


async def test_drained_agent_stops_when_all_is_done(bench: Bench, loop: CommandsLoop) -> None:
    """Not before the last word on each run is said and told; the next start takes requests."""
    await bench.add("run-1", phase=Phase.RUNNING, job_id="7", started_at=1.0)
    said = await asked(bench, loop, CommandKind.DRAIN, stop=True)
    assert "1 runs" in said
    assert not bench.context.stop.is_set()

    def over(db: Database) -> None:
        db.execute("UPDATE workers SET concluded_at = 1.0")
        db.execute("UPDATE inbox SET answered_at = 1.0")
        db.execute("DELETE FROM outbox")

    await bench.context.store.run(over)
    await loop.step()
    assert bench.context.stop.is_set()
    assert not (await bench.context.store.run(Drain().recall)).is_on


async def test_agent_that_drains_waits_for_steps(bench: Bench, loop: CommandsLoop) -> None:
    """A step's job may end later than its run, and its end has to be seen."""
    await bench.add(
        "fit", kind=workers.WorkerKind.STEP, phase=Phase.RUNNING, job_id="2", run_id="r", step="fit"
    )
    await bench.context.store.run(lambda db: db.execute("UPDATE inbox SET answered_at = 1.0"))
    assert "1 jobs of steps" in await asked(bench, loop, CommandKind.DRAIN, stop=True)
    assert not bench.context.stop.is_set()
    await bench.context.store.run(lambda db: db.execute("UPDATE workers SET concluded_at = 1.0"))
    await loop.step()
    assert bench.context.stop.is_set()


async def test_command_without_an_agent_is_refused(bench: Bench) -> None:
    """It says what to do, and is not done later by an agent that is started then."""
    with pytest.raises(HpcAgentError, match="no agent runs with the home directory"):
        await asyncio.to_thread(carry_out, bench.context.config, CommandKind.DRAIN, {"stop": True})
    await CommandsLoop(bench.context).step()
    assert not bench.context.drain.is_on


async def test_command_that_nobody_answers_is_taken_back(bench: Bench, loop: CommandsLoop) -> None:
    """And one whose sender was killed is too old after a minute."""
    config = bench.context.config
    with pytest.raises(HpcAgentError, match="does not answer within 0 s, and will not do it later"):
        await asyncio.to_thread(
            carry_out, config, CommandKind.DRAIN, {"stop": True}, wait_seconds=0.1
        )
    old = time.time() - 120
    await bench.context.store.run(
        lambda db: commands.give(db, CommandKind.DRAIN, {"stop": True}, old)
    )
    await loop.step()
    assert not bench.context.drain.is_on


async def test_command_that_takes_long_is_not_said_to_be_withdrawn(
    bench: Bench, loop: CommandsLoop
) -> None:
    """It was begun with, and will be done."""
    config = bench.context.config
    call = asyncio.create_task(
        asyncio.to_thread(carry_out, config, CommandKind.ACCEPT, {}, wait_seconds=0.5)
    )

    async def begun() -> None:
        wall, store = bench.context.wall, bench.context.store
        while await store.run(lambda db: commands.begin(db, wall())) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # by another process: nobody here can be waited for

    await begun()
    with pytest.raises(HpcAgentError, match="does not answer within 0 s, and is at it still"):
        await call


@pytest.mark.parametrize(("kind", "subject"), [("gc", {}), ("dance", {})])
async def test_command_that_makes_no_sense_holds_up_no_other(
    bench: Bench, loop: CommandsLoop, kind: str, subject: dict[str, str]
) -> None:
    """Of another release, or of a fault of ours: the next one is carried out."""

    def give(db: Database) -> int:
        given = commands.give(db, CommandKind.GC, subject, time.time())
        db.execute("UPDATE commands SET kind = ? WHERE id = ?", [kind, given])
        return given

    given = await bench.context.store.run(give)
    assert "nothing new is taken" in await asked(bench, loop, CommandKind.DRAIN, stop=False)
    outcome = await bench.context.store.run(lambda db: commands.outcome_of(db, given))
    assert outcome is None or "unexpected error" in outcome[0]


async def test_run_that_two_pauses_hold_back_names_one(bench: Bench, loop: CommandsLoop) -> None:
    """Its log is not told one after the other, again and again."""
    await bench.add("run-1")
    await asked(bench, loop, CommandKind.PAUSE, **PLACE)
    early = bench.context.wall() - 7200
    await bench.context.store.run(lambda db: pauses.begin(db, Pause("here", "prod", early)))
    for _ in range(3):
        await loop.step()
    told = [text for text in await bench.messages(outbox.EVENT) if "paused" in text]
    assert len(told) <= 2
    await asked(bench, loop, CommandKind.RESUME, **PLACE)
    assert await due(bench) == []


async def test_pause_of_a_location_that_is_not_served_says_so(
    bench: Bench, loop: CommandsLoop
) -> None:
    """It may be misspelled."""
    await bench.add("server", kind=workers.WorkerKind.CODE_SERVER, phase=Phase.RUNNING)
    server = CodeServer(
        key="server", deployment="prod", location="weather", version="1", deploy_data="{}",
        status=ServerStatus.SERVING, error=None, created_at=1.0,
    )  # fmt: skip
    await bench.context.store.run(lambda db: code_servers.insert(db, server))
    place = {"location": "weathr", "deployment": ""}
    said = await asked(bench, loop, CommandKind.PAUSE, **place)
    assert "weathr is paused (it is not served here; did you mean weather?)" in said


async def test_what_is_over_and_what_belongs_to_nobody_is_removed(
    bench: Bench, loop: CommandsLoop
) -> None:
    """At once and not after a month; a dry run removes nothing, and live jobs stay."""
    work = bench.context.preparation.work

    async def there() -> list[str]:
        return sorted(await asyncio.to_thread(work.files.names, work.jobs))

    for key in ("run-1", "run-2", "stray"):
        await asyncio.to_thread(work.files.make_directory, work.of(key))
    await bench.add("run-1", phase=Phase.ENDED, concluded_at=bench.clock.now - 3600)
    await bench.add("run-2", phase=Phase.RUNNING, job_id="8", started_at=1.0)
    old = {"older_than_seconds": 1800.0}
    said = await asked(bench, loop, CommandKind.GC, **old, dry_run=True)
    assert said == "would remove 1 jobs with their directories, 1 of nobody"
    assert await there() == ["run-1", "run-2", "stray"]
    await asked(bench, loop, CommandKind.GC, **old, dry_run=False)
    assert await there() == ["run-2"]
    assert await bench.context.store.run(workers.keys) == {"run-2"}


async def test_command_is_heard_at_once(bench: Bench, loop: CommandsLoop) -> None:
    """The loop would look by itself after a quarter of a minute."""
    bell = bench.context.bells.commands
    async with answered(bench.context.config.home, bell.ring):
        running = asyncio.create_task(repeat("commands", loop.step, bell))
        started = time.monotonic()
        for _ in range(3):
            await asyncio.to_thread(
                carry_out, bench.context.config, CommandKind.GC,
                {"older_than_seconds": 1.0, "dry_run": True},
            )  # fmt: skip
        assert time.monotonic() - started < 10
        running.cancel()
        await asyncio.wait([running])
