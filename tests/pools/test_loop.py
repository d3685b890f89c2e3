"""The life of allocations, and what waits for them in vain."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlite_utils import Database

from hpc_agent.agent.commands import CommandsLoop
from hpc_agent.agent.submit import SubmitLoop
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.store import commands, launches, pools
from hpc_agent.store.commands import CommandKind
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement
from tests.pools.conftest import POOL, Pooling, pool_settings, run


async def test_an_allocation_comes_with_what_waits_and_goes_when_idle(pooling: Pooling) -> None:
    """Each with a line that says why."""
    await pooling.loop.step()
    assert await pooling.allocations() == []
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await pooling.change(run(1), phase=Phase.ENDED)
    await pooling.work(key)
    pooling.bench.clock.now += 601
    await pooling.loop.step()
    assert (await pooling.work(key))["is_leaving"]
    first, last = await pooling.decisions()
    assert first.startswith("1 more: 1 wait")
    assert last.startswith(f"{key} takes nothing more: idle for 60")


async def test_after_failed_starts_it_is_stopped_and_runs_get_jobs(pooling: Pooling) -> None:
    """The reason is in the runs' logs."""
    await pooling.wants(1)
    for _ in range(3):
        await pooling.loop.step()
        (allocation,) = await pooling.allocations()
        await pooling.change(
            allocation.key,
            phase=Phase.REFUSED,
            message="Invalid account",
            ended_at=pooling.bench.clock(),
        )
        await pooling.loop.step()
        assert await pooling.allocations() == []  # not at once
        pooling.bench.clock.now += 21
    await pooling.loop.step()
    stop = await pooling.bench.context.store.run(lambda db: pools.stopped(db, POOL))
    assert stop is not None
    assert stop.reason == "3 allocations in a row have failed: Invalid account"
    await pooling.loop.step()
    member = await pooling.bench.job(run(1))
    assert (member.placement, member.pool, member.phase) == (Placement.JOB, None, Phase.INTENT)
    assert "It gets a job of its own: pool short is stopped" in "".join(
        await pooling.bench.messages("event")
    )
    pooling.bench.scheduler.submissions.append("300")
    await SubmitLoop(pooling.bench.context).step()
    await pooling.bench.context.tasks.finish()
    assert (await pooling.bench.job(run(1))).job_id == "300"


@pytest.mark.parametrize("settings", [pool_settings(fallback_seconds=None)])
async def test_a_stopped_pool_holds_nobody_for_ever(pooling: Pooling) -> None:
    """Also where what finds no slot is to wait: there will be none."""
    await pooling.wants(1)
    context = pooling.bench.context
    await pooling.loop.step()
    await context.store.run(lambda db: pools.stop(db, POOL, "why", now=context.clock()))
    pooling.bench.clock.now += 1000
    await pooling.loop.step()
    assert (await pooling.bench.job(run(1))).placement is Placement.JOB


async def test_what_finds_no_slot_in_time_gets_a_job(pooling: Pooling) -> None:
    """Not before."""
    await pooling.wants(1)
    await pooling.loop.step()
    pooling.bench.clock.now += 119
    await pooling.loop.step()
    assert (await pooling.bench.job(run(1))).placement is Placement.POOL
    pooling.bench.clock.now += 2
    await pooling.loop.step()
    assert (await pooling.bench.job(run(1))).placement is Placement.JOB


async def test_what_never_begins_gets_a_job(pooling: Pooling) -> None:
    """Though a supervisor that waits for work takes it again and again, and would be faster."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    async with pooling.looping():
        for seconds in (31, 31, 31, 31):
            seen = (await pooling.work(key))["number"]
            parked = asyncio.create_task(pooling.work(key, seen=seen, wait=20))
            await asyncio.sleep(0.05)
            pooling.bench.clock.now += seconds
            await pooling.loop.step()
            await asyncio.wait([parked], timeout=1)
            parked.cancel()
    member = await pooling.bench.job(run(1))
    assert (member.phase, member.placement, member.pack_key) == (
        Phase.INTENT,
        Placement.JOB,
        None,
    )
    assert (await pooling.work(key))["start"] == []


async def test_time_without_an_agent_is_no_wait_for_a_slot(pooling: Pooling) -> None:
    """Nobody could have given it one."""
    await pooling.wants(1)
    await pooling.loop.step()
    pooling.bench.clock.now += 1000
    restarted = await pooling.restarted(pooling.bench.context.config)
    await restarted.loop.step()
    assert (await pooling.bench.job(run(1))).placement is Placement.POOL


async def test_pause_is_no_wait_for_a_slot(pooling: Pooling) -> None:
    """What was taken meanwhile is given to slots as soon as its location goes on."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await told(pooling, CommandKind.PAUSE)
    await pooling.loop.step()
    pooling.bench.clock.now += 1000
    seen = (await pooling.work(key))["number"]
    async with pooling.looping():
        parked = asyncio.create_task(pooling.work(key, seen=seen, wait=20))
        await asyncio.sleep(0.2)
        assert not parked.done()
        await told(pooling, CommandKind.RESUME)
        await pooling.loop.step()
        assert (await asyncio.wait_for(parked, 5))["start"] == [run(1)]


async def told(pooling: Pooling, kind: CommandKind) -> None:
    """Let an operator say something of the location."""
    context = pooling.bench.context
    where = {"location": "here", "deployment": "prod"}
    await context.store.run(lambda db: commands.give(db, kind, where, context.wall()))
    await CommandsLoop(context).step()


@pytest.mark.parametrize("seconds", [7200, 3590, 3540])
async def test_nothing_is_started_for_what_takes_too_long(pooling: Pooling, seconds: int) -> None:
    """A run of two hours fits into no allocation of one, nor one of nearly an hour."""
    worker = await pooling.wants(1)
    launch = RunToLaunch(
        run_id=str(worker.run_id),
        job_name="j",
        location="here",
        tags={"dagster/max_runtime": str(seconds)},
        code_origin={},
    )
    await pooling.bench.context.store.run(lambda db: launches.keep(db, launch, "prod"))
    await pooling.loop.step()
    assert await pooling.allocations() == []
    assert (await pooling.bench.job(run(1))).placement is Placement.JOB


async def test_an_old_allocation_takes_nothing_that_may_outlive_it(pooling: Pooling) -> None:
    """And its successor is started before its time limit."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    clock = pooling.bench.clock
    await pooling.change(key, started_at=clock() - 3400)
    await pooling.bench.context.store.run(
        lambda db: db.execute("UPDATE jobs SET deadline_at = ?", [clock() + 200])
    )
    await pooling.wants(2)
    assert (await pooling.work(key, held=[run(1)]))["start"] == []
    await pooling.loop.step()
    assert len(await pooling.allocations()) == 2


async def test_idle_allocation_without_the_time_blocks_nothing(pooling: Pooling) -> None:
    """A run of up to 55 minutes waits for none that has 50 left: another one is started."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await pooling.change(run(1), phase=Phase.ENDED)
    worker = await pooling.wants(2)
    launch = RunToLaunch(
        run_id=str(worker.run_id),
        job_name="j",
        location="here",
        tags={"dagster/max_runtime": "3300"},
        code_origin={},
    )

    def write(db: Database) -> None:
        launches.keep(db, launch, "prod")
        db.execute("UPDATE jobs SET deadline_at = ?", [pooling.bench.clock() + 3000])

    await pooling.bench.context.store.run(write)
    assert (await pooling.work(key))["start"] == []
    await pooling.loop.step()
    assert len(await pooling.allocations()) == 2
    assert (await pooling.decisions())[-1] == (
        "1 more: 1 wait for which no allocation has the time any more"
    )


async def test_nothing_waits_for_a_pool_that_agent_yaml_has_no_more(pooling: Pooling) -> None:
    """Its runs get jobs, and its allocation takes nothing more."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await pooling.wants(2)
    config = pooling.bench.context.config.model_copy(update={"pools": {}, "locations": {}})
    restarted = await pooling.restarted(config)
    await restarted.loop.step()
    orders = await restarted.work(key)
    assert (orders["is_leaving"], orders["start"]) == (True, [])
    await restarted.loop.step()
    for number in (1, 2):
        member = await pooling.bench.job(run(number))
        assert (member.phase, member.placement) == (Phase.INTENT, Placement.JOB)


@pytest.mark.parametrize("settings", [pool_settings(min=1)])
async def test_allocation_goes_when_it_is_not_what_agent_yaml_says(pooling: Pooling) -> None:
    """Its runs end in it, and another one takes what waits."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    await pooling.wants(2)
    await (await pooling.restarted(pooling.bench.context.config)).loop.step()
    assert not (await pooling.bench.job(key)).is_leaving
    environment = pooling.bench.context.config.environment
    changed = environment.model_copy(update={"variables": {"OMP_NUM_THREADS": "1"}})
    config = pooling.bench.context.config.model_copy(update={"environment": changed})
    await (await pooling.restarted(config)).loop.step()
    assert (await pooling.bench.job(key)).is_leaving
    assert len(await pooling.allocations()) == 2
    first, *_ = (await pooling.decisions())[1:]
    assert first == (
        f"{key} takes nothing more: its options, slots or environment have changed since it was "
        "started"
    )


async def test_allocation_goes_when_there_is_another_archive(
    pooling: Pooling, tmp_path: Path
) -> None:
    """It has unpacked the older one, which the code that is deployed next does not fit."""
    archive = tmp_path / "env.tar"
    archive.write_text("old")
    packed = pooling.bench.context.config.environment.model_copy(update={"packed": str(archive)})
    config = pooling.bench.context.config.model_copy(update={"environment": packed})
    restarted = await pooling.restarted(config)
    await pooling.wants(1)
    key = await restarted.allocation()
    await restarted.work(key)
    await restarted.loop.step()
    assert not (await pooling.bench.job(key)).is_leaving
    away = archive.rename(tmp_path / "away")
    await restarted.loop.step()
    assert not (await pooling.bench.job(key)).is_leaving
    away.rename(archive)
    archive.write_text("newer")
    await restarted.loop.step()
    assert (await pooling.bench.job(key)).is_leaving


async def test_an_operator_lets_an_allocation_go(pooling: Pooling) -> None:
    """It ends with its last run, and nobody's run is ended."""
    await pooling.wants(1)
    key = await pooling.allocation()
    await pooling.work(key)
    context = pooling.bench.context
    await context.store.run(
        lambda db: commands.give(db, CommandKind.CANCEL, {"key": key}, context.wall())
    )
    await CommandsLoop(context).step()
    assert (await pooling.work(key))["is_leaving"]
    assert (await pooling.bench.job(run(1))).terminate_at is None


async def test_what_is_too_long_for_an_allocation_holds_up_no_other(pooling: Pooling) -> None:
    """The oldest of those that fit is taken."""
    long = await pooling.wants(1, created_at=900.0)
    await pooling.wants(2)
    key = await pooling.allocation()
    launch = RunToLaunch(
        run_id=str(long.run_id),
        job_name="j",
        location="here",
        tags={"dagster/max_runtime": "1800"},
        code_origin={},
    )

    def write(db: Database) -> None:
        launches.keep(db, launch, "prod")
        db.execute("UPDATE jobs SET deadline_at = ?", [pooling.bench.clock() + 1000])

    await pooling.bench.context.store.run(write)
    assert (await pooling.work(key, slots=1))["start"] == [run(2)]
