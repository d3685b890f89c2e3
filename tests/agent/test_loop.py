"""Loops go on whatever happens, bells wake them, crews outlive their members."""

from __future__ import annotations

import asyncio
import logging

import pytest

from hpc_agent.agent.loop import Bell, repeat
from hpc_agent.agent.tasks import Tasks
from hpc_agent.agent.troubles import Troubles
from hpc_agent.errors import ControlPlaneUnavailableError, LeaseHeldError


async def test_loop_survives_errors_and_says_each_once(caplog: pytest.LogCaptureFixture) -> None:
    """Known trouble is one line, repeated trouble no second one, the unknown a traceback."""
    steps = 0
    done = asyncio.Event()
    bell = Bell()
    troubles, said = Troubles(), []

    async def step() -> float:
        nonlocal steps
        steps += 1
        if steps <= 3:
            bell.ring()  # nobody waits for the back-off here
        if steps <= 2:
            raise ControlPlaneUnavailableError("away")
        said.append([row["words"] for row in troubles.rows()])
        if steps == 3:
            raise ValueError("a bug")
        done.set()
        return 60.0

    with caplog.at_level(logging.INFO):
        task = asyncio.create_task(repeat("test", step, bell, troubles))
        await asyncio.wait_for(done.wait(), 10)
        await asyncio.sleep(0)
        task.cancel()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage().split(" (")[0] for record in warnings] == ["test: away"]
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    assert said == [["away"], ["unexpected error: ValueError('a bug')"]]
    assert troubles.rows() == []


async def test_lost_lease_ends_the_loop() -> None:
    """Two agents must not act on one home directory."""

    async def step() -> float:
        raise LeaseHeldError("taken")

    with pytest.raises(LeaseHeldError):
        await repeat("lease", step, Bell())


async def test_bell_rung_early_is_not_lost() -> None:
    """Ringing before the wait ends the next wait at once."""
    bell = Bell()
    bell.ring()
    await asyncio.wait_for(bell.wait(3600), 5)


async def test_loop_that_is_dear_rests_although_the_bell_rings() -> None:
    """What has rung meanwhile is one step after the rest."""
    bell, time = Bell(rest_seconds=0.2), asyncio.get_running_loop().time
    began = time()
    bell.ring()
    await bell.wait(60)
    assert time() - began >= 0.2
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bell.wait(60), 0.3)


async def test_crew_takes_each_task_once() -> None:
    """One task for each name; an error in one leaves the others alone."""
    tasks = Tasks()
    release = asyncio.Event()
    finished = []

    async def work(name: str) -> None:
        await release.wait()
        if name == "bad":
            raise ValueError(name)
        finished.append(name)

    assert tasks.start("good", work("good"))
    assert not tasks.start("good", work("again"))
    assert tasks.start("bad", work("bad"))
    release.set()
    await tasks.finish()
    assert finished == ["good"]
    assert len(tasks) == 0
