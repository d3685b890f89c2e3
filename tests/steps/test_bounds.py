"""How many jobs of steps a code location has at once, and what those beyond it hear."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_agent.agent.submit import take_alike
from hpc_agent.store.phases import Phase
from hpc_agent.store.step_bounds import StepBounds
from hpc_agent.store.workers import Placement, Worker, WorkerKind
from tests.steps.conftest import Asking
from tests.steps.test_api import a_step

FOUR = {"steps": {"max_concurrent": 4}}


async def steps_in(asking: Asking, phase: Phase, count: int) -> list[Worker]:
    """Return the workers of the first so many parts that are in a phase."""
    found = [await asking.step(f"part[{number}]") for number in range(count)]
    return [worker for worker in found if worker.phase is phase]


async def submit_parts(asking: Asking, count: int, **more: Any) -> None:
    await asking.submit(*(a_step(f"part[{number}]", **more) for number in range(count)))


@pytest.mark.parametrize("settings", [FOUR])
async def test_those_beyond_it_wait_and_say_why(asking: Asking) -> None:
    """As intents: nothing of them is in Slurm's queue, and the array has four tasks."""
    await submit_parts(asking, 10)
    await asking.submitted("20")
    assert asking.bench.scheduler.arrays == [4]
    queued = await steps_in(asking, Phase.QUEUED, 10)
    assert [worker.step for worker in queued] == [f"part[{number}]" for number in range(4)]
    statuses = (await asking.changes())["jobs"]
    reasons = [status["reason"] for status in statuses if status["phase"] == "waiting"]
    assert len(reasons) == 6
    assert all("code location here has 4 jobs of steps at once" in words for words in reasons)


@pytest.mark.parametrize("settings", [FOUR])
async def test_end_of_one_makes_room_for_the_next(asking: Asking) -> None:
    """The oldest goes, whatever it is alike to; the others are not told again."""
    await submit_parts(asking, 6)
    await asking.submitted("20")
    cursor = (await asking.changes())["cursor"]
    await asking.change("part[1]", phase=Phase.ENDED)
    await asking.submitted("21")
    assert (await asking.step("part[4]")).job_id == "21"
    changed = (await asking.changes(after=cursor))["jobs"]
    assert {status["name"] for status in changed} == {"part[1]", "part[4]"}
    assert (await asking.step("part[5]")).phase is Phase.INTENT


@pytest.mark.parametrize("settings", [FOUR])
async def test_those_that_are_like_no_other_count_as_well(asking: Asking) -> None:
    """A step is submitted by itself, or as a task of an array: it is a job."""
    for number in range(6):
        await asking.submit(a_step(f"part[{number}]", tags={"dagster-hpc/time": str(number + 1)}))
    await asking.submitted("1", "2", "3", "4")
    assert len(await steps_in(asking, Phase.QUEUED, 6)) == 4


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        ({}, 6),
        ({"steps": {"max_concurrent": 2}}, 2),
        ({"locations": {"here": {"max_concurrent_steps": 3}}}, 3),
        ({"locations": {"elsewhere": {"max_concurrent_steps": 1}}}, 6),
        ({"steps": {"max_concurrent": 2}, "locations": {"here": {"max_concurrent_steps": 5}}}, 5),
    ],
)
async def test_bound_of_a_location_wins(asking: Asking, taken: int) -> None:
    """Over the one for all; without any, all are submitted."""
    await submit_parts(asking, 6)
    await asking.submitted("20")
    assert len(await steps_in(asking, Phase.QUEUED, 6)) == taken


@pytest.mark.parametrize("settings", [{"steps": {"max_concurrent": 1}}])
async def test_steps_of_others_and_runs_are_not_counted(asking: Asking) -> None:
    """Another location has room of its own, a pool bounds its steps, and run workers need none."""
    bench = asking.bench
    for key, more in {
        "stp-other": {"kind": WorkerKind.STEP, "location": "there", "step": "s"},
        "stp-pool": {"kind": WorkerKind.STEP, "placement": Placement.POOL, "step": "p"},
        "run-2": {},
    }.items():
        await bench.add(key, phase=Phase.RUNNING, job_id=f"9{key}", **more)
    await submit_parts(asking, 2)
    await asking.submitted("20")
    assert len(await steps_in(asking, Phase.QUEUED, 2)) == 1


async def test_bound_is_kept_by_each_transaction(asking: Asking) -> None:
    """An array is taken a hundred at a time, while others are submitted."""
    store = asking.bench.context.store
    await submit_parts(asking, 250)
    likeness = (await asking.step("part[0]")).likeness
    bounds = StepBounds(of_others=150)
    taken = await take_alike(store, bounds, str(likeness), "arr-1", size=1000, now=2000.0)
    assert len(taken) == 150
    again = await take_alike(store, bounds, str(likeness), "arr-2", size=1000, now=2000.0)
    assert again == []
