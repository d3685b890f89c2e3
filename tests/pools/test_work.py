"""What supervisors are told: each run once, what must end, and nothing that is not theirs."""

from __future__ import annotations

import asyncio
import json

import pytest

from hpc_agent.relay.identity import TOKEN_HEADER
from hpc_agent.slurm.state import JobState
from hpc_agent.store import inbox, tracking
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement
from hpc_agent.workers import intents
from hpc_agent.workers.change import Change
from tests.pools.conftest import TOKENS, Pooling, pool_settings, run


async def start(pooling: Pooling, number: int, job_id: str = "100") -> None:
    """Let the slot program of a run report its start."""
    answer = json.dumps({"status": {"__enum__": "DagsterRunStatus.STARTING"}})
    pooling.bench.control_plane.answer = {"data": {"runs": {"getRunById": answer}}}
    answered = await report(pooling, number, "started", job_id)
    assert answered["proceed"], answered


async def report(
    pooling: Pooling, number: int, event: str, job_id: str = "100", **more: object
) -> dict[str, object]:
    """Let the slot program of a run report."""
    answer = await pooling.client.post(
        "/_hpc/report",
        json={"event": event, "hostname": "c1", "slurm_job_id": job_id, **more},
        headers={TOKEN_HEADER: TOKENS.token(run(number))},
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_what_waits_is_given_out_once_and_its_request_answered(pooling: Pooling) -> None:
    """It has the allocation's job from then on, and no sbatch of its own."""
    await pooling.wants(1)
    key = await pooling.allocation()
    orders = await pooling.work(key)
    assert orders["start"] == [run(1)]
    member = await pooling.bench.job(run(1))
    assert (member.phase, member.job_id, member.pack_key) == (Phase.QUEUED, "100", key)
    assert member.own_job_id is None
    assert not await pooling.bench.context.store.run(
        lambda db: inbox.is_open(db, f"request of {run(1)}")
    )
    # Until it is held: the answer may have been lost.
    assert (await pooling.work(key))["start"] == [run(1)]
    assert (await pooling.work(key, held=[run(1)]))["start"] == []
    assert len(pooling.bench.scheduler.submitted) == 1


async def test_no_more_than_there_are_slots(pooling: Pooling) -> None:
    """The oldest first; a slot is free again when its run is over for the agent."""
    for number in (1, 2, 3):
        await pooling.wants(number, created_at=990.0 + number)
    key = await pooling.allocation()
    assert (await pooling.work(key))["start"] == [run(1), run(2)]
    await start(pooling, 1)
    await report(pooling, 1, "exited", exit={"outcome": "exited", "exit_code": 0})
    held = [run(1), run(2)]
    assert (await pooling.work(key, held=held))["start"] == [run(3)]


async def test_a_parked_supervisor_hears_at_once(pooling: Pooling) -> None:
    """It waits in a call, and nobody looks every few seconds."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await start(pooling, 1)
    held = await pooling.work(key, held=[run(1)])
    async with pooling.looping():
        parked = asyncio.create_task(pooling.work(key, held=[run(1)], seen=held["number"], wait=20))
        await asyncio.sleep(0.2)
        assert not parked.done()
        await pooling.wants(2)
        assert (await asyncio.wait_for(parked, 5))["start"] == [run(2)]


async def test_call_that_waits_knows_what_was_said_since(pooling: Pooling) -> None:
    """A supervisor that leaves is given nothing by a call that it made before."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await start(pooling, 1)
    held = await pooling.work(key, held=[run(1)])
    async with pooling.looping():
        parked = asyncio.create_task(pooling.work(key, held=[run(1)], seen=held["number"], wait=20))
        await asyncio.sleep(0.2)
        await pooling.work(key, held=[run(1)], is_leaving=True)
        await pooling.wants(2)
        await pooling.bench.context.termination.end(run(1), "Enough.", source="test")
        answer = await asyncio.wait_for(parked, 10)
        assert (answer["start"], answer["end"]) == ([], [[run(1), "INT"]])


async def test_one_that_is_asked_to_end_is_ended_where_it_lives(pooling: Pooling) -> None:
    """Never by a signal to the allocation's job, which would hit its neighbours."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await start(pooling, 1)
    await pooling.bench.context.termination.end(run(1), "Enough.", source="test")
    assert pooling.bench.scheduler.signalled == []
    assert (await pooling.work(key, held=[run(1)]))["end"] == [[run(1), "INT"]]
    pooling.bench.clock.now += 1000
    assert (await pooling.work(key, held=[run(1)]))["end"] == [[run(1), "TERM"]]


async def test_one_that_has_not_begun_is_withdrawn_at_once(pooling: Pooling) -> None:
    """Nothing of it can have run."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await pooling.bench.context.termination.end(run(1), "Enough.", source="test")
    orders = await pooling.work(key)
    assert (orders["start"], orders["end"]) == ([], [])
    assert (await pooling.bench.job(run(1))).phase is Phase.WITHDRAWN


async def test_the_token_of_a_pool_opens_nothing_else(pooling: Pooling) -> None:
    """And that of a run does not ask for the pool's work."""
    await pooling.wants(1)
    key = await pooling.allocation()
    for path in ("/graphql", "/_hpc/steps"):
        answer = await pooling.client.post(path, json={}, headers={TOKEN_HEADER: TOKENS.token(key)})
        assert answer.status_code in {403, 404}, (path, answer.text)
    assert (await pooling.ask(run(1))).status_code == 403
    assert (await pooling.ask(key, held=["../../etc"])).status_code == 400


async def test_an_allocation_that_ends_takes_along_what_had_begun(pooling: Pooling) -> None:
    """As its own job would have ended; the rest waits for another slot."""
    await pooling.wants(1)
    await pooling.wants(2)
    key = await pooling.allocation()
    await pooling.work(key)
    await start(pooling, 1)
    preempted = {"outcome": JobState.PREEMPTED, "ended_at": pooling.bench.clock()}
    await pooling.bench.context.changes.apply(
        key, lambda *_: Change(phase=Phase.ENDED, worker=preempted), source="test"
    )
    first, second = await pooling.bench.job(run(1)), await pooling.bench.job(run(2))
    assert (first.phase, first.state) == (Phase.ENDED, JobState.PREEMPTED)
    assert (second.phase, second.pack_key, second.job) == (Phase.INTENT, None, None)
    assert (await pooling.work(key))["is_leaving"]


async def test_what_has_not_begun_in_time_is_given_to_another(pooling: Pooling) -> None:
    """And should it begin after all, it is the claim that counts."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    pooling.bench.clock.now += 31
    await pooling.loop.step()
    member = await pooling.bench.job(run(1))
    assert (member.phase, member.pack_key) == (Phase.INTENT, None)
    await start(pooling, 1)
    member = await pooling.bench.job(run(1))
    assert (member.phase, member.pack_key, member.job_id) == (Phase.RUNNING, key, "100")


async def test_a_late_start_wins_over_a_job_of_its_own(pooling: Pooling) -> None:
    """The job that was asked for meanwhile is a duplicate, and is cancelled."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await pooling.change(
        run(1), phase=Phase.INTENT, pack_key=None, current_job=None, placement=Placement.JOB
    )
    await pooling.bench.context.changes.apply(
        run(1),
        lambda worker, _: intents.observe_submission(worker, "200", pooling.bench.clock()),
        source="test",
    )
    await start(pooling, 1)
    member = await pooling.bench.job(run(1))
    assert (member.placement, member.pack_key, member.job_id) == (Placement.POOL, key, "100")
    due = await pooling.bench.context.store.run(
        lambda db: tracking.to_cancel(db, pooling.bench.clock())
    )
    assert [(each.job.job_id, each.is_duplicate) for each in due] == [("200", True)]


async def test_a_member_without_a_process_is_over(pooling: Pooling) -> None:
    """Its slot program was killed: nobody would ever tell its end."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await start(pooling, 1)
    pooling.bench.clock.now += 1
    await pooling.work(key)
    pooling.bench.clock.now += 25
    await pooling.work(key)
    await pooling.loop.step()
    member = await pooling.bench.job(run(1))
    assert (member.phase, member.state) == (Phase.ENDED, JobState.FAILED)
    assert "is gone" in member.message


async def test_one_that_claimed_and_told_no_start_is_begun_again(pooling: Pooling) -> None:
    """Its slot program was killed in between: nothing of it has run, and nobody would say so."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    claim = {"slurm_job_id": "100", "hostname": "c1", "pid": 1, "restart_count": 0, "time": 1.0}
    directory = pooling.bench.context.preparation.work.of(run(1))
    directory.mkdir()
    (directory / "claim").write_text(json.dumps(claim))
    pooling.bench.clock.now += 31
    await pooling.loop.step()
    assert (await pooling.bench.job(run(1))).is_claimed
    pooling.bench.clock.now += 1
    await pooling.work(key)
    pooling.bench.clock.now += 25
    await pooling.work(key)
    await pooling.loop.step()
    member = await pooling.bench.job(run(1))
    assert (member.phase, member.state) == (Phase.ENDED, JobState.LAUNCH_FAILED)


async def test_what_has_not_begun_leaves_an_allocation_that_ends(pooling: Pooling) -> None:
    """At once; what its supervisor holds may have begun, and stays."""
    await pooling.wants(1)
    await pooling.wants(2)
    key = await pooling.allocation()
    await pooling.work(key)
    orders = await pooling.work(key, held=[run(1)], is_leaving=True)
    assert orders["start"] == []
    assert (await pooling.bench.job(run(1))).phase is Phase.QUEUED
    assert (await pooling.bench.job(run(2))).phase is Phase.INTENT


async def test_end_of_its_allocation_says_why_a_member_was_ended(pooling: Pooling) -> None:
    """Though a neighbour takes its time to end, and Slurm tells nothing before that."""
    await pooling.wants(1)
    await pooling.wants(2)
    key = await pooling.allocation()
    await pooling.work(key)
    await start(pooling, 1)
    await start(pooling, 2)
    terminated = {"outcome": "terminated", "signal": 15, "ended_on": "SIGTERM", "ended_at": 1.0}
    await report(pooling, 1, "exited", exit=terminated)
    left_behind(pooling, 1, terminated)
    pooling.bench.clock.now += 1
    await pooling.work(key, held=[run(2)], is_leaving=True)
    pooling.bench.clock.now += 50
    await pooling.loop.step()
    assert (await pooling.bench.job(run(1))).phase is Phase.RUNNING
    preempted = {"outcome": JobState.PREEMPTED, "ended_at": pooling.bench.clock()}
    await pooling.bench.context.changes.apply(
        key, lambda *_: Change(phase=Phase.ENDED, worker=preempted), source="test"
    )
    for number in (1, 2):
        assert (await pooling.bench.job(run(number))).state is JobState.PREEMPTED


async def test_member_that_somebody_has_ended_is_over(pooling: Pooling) -> None:
    """By hand, in an allocation that goes on."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await start(pooling, 1)
    left_behind(pooling, 1, {"outcome": "terminated", "ended_on": "SIGTERM", "ended_at": 1.0})
    pooling.bench.clock.now += 1
    await pooling.work(key)
    pooling.bench.clock.now += 25
    await pooling.loop.step()
    member = await pooling.bench.job(run(1))
    assert (member.phase, member.state) == (Phase.ENDED, JobState.FAILED)
    assert member.message.endswith("was ended by SIGTERM, and nobody says why")


async def test_member_lives_where_it_is_held(pooling: Pooling) -> None:
    """It was given to the second node, back, to the first one, and began on the second."""
    await pooling.wants(1)
    key = await pooling.allocation()
    second = {"node": 1, "hostname": "c2"}
    await pooling.work(key, **second)
    pooling.bench.clock.now += 31
    await pooling.loop.step()
    assert (await pooling.work(key))["start"] == [run(1)]
    await start(pooling, 1)
    await pooling.work(key, held=[run(1)], **second)
    pooling.bench.clock.now += 1
    await pooling.work(key)
    pooling.bench.clock.now += 30
    # The first node could not start it, and says so late.
    await report(pooling, 1, "exited", exit={"outcome": "not_started", "hostname": "c1"})
    await pooling.loop.step()
    assert (await pooling.bench.job(run(1))).phase is Phase.RUNNING
    await pooling.bench.context.termination.end(run(1), "Enough.", source="test")
    assert (await pooling.work(key))["end"] == []
    assert (await pooling.work(key, held=[run(1)], **second))["end"] == [[run(1), "INT"]]


def left_behind(pooling: Pooling, number: int, record: dict[str, object]) -> None:
    """Let a member have left an exit record."""
    directory = pooling.bench.context.preparation.work.of(run(number))
    directory.mkdir()
    (directory / "exit.json").write_text(json.dumps(record))


@pytest.mark.parametrize("settings", [pool_settings(slot={"seconds": 60})])
async def test_one_that_takes_too_long_is_told_as_by_a_time_limit(pooling: Pooling) -> None:
    """So its policy for time limits decides what follows."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await start(pooling, 1)
    pooling.bench.clock.now += 59
    assert (await pooling.work(key, held=[run(1)]))["end"] == []
    pooling.bench.clock.now += 2
    assert (await pooling.work(key, held=[run(1)]))["end"] == [[run(1), "USR1"]]
