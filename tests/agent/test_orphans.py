"""Jobs of runs that were deleted are ended; those of runs that an answer lacks once are not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from hpc_agent.agent.orphans import OrphansLoop
from hpc_agent.store import workers
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Bench
from tests.relay.fake_control_plane import Received, Reply

STARTED = {"phase": Phase.RUNNING, "job_id": "7", "started_at": 1.0}
RUN = json.dumps({"status": {"__enum__": "DagsterRunStatus.STARTED"}})
CANCELING = {"status": {"__enum__": "DagsterRunStatus.CANCELING"}}


def answer(bench: Bench, there: Sequence[str], *, one: str | None = None) -> None:
    """Let the control plane have these runs; ``one`` is what it says of a single one."""
    runs = {"getRuns": [], "getRunIds": list(there), "getRunById": one}
    bench.control_plane.answer = {"data": {"runs": runs}}


async def looks(bench: Bench, loop: OrphansLoop, seconds: float) -> list[bool]:
    """Look every ten seconds; return which of the two workers are asked to end."""
    for _ in range(int(seconds // 10)):
        await loop.step()
        bench.clock.now += 10
    return [(await bench.job(f"run-{n}")).terminate_at is not None for n in (1, 2)]


def canceling(bench: Bench, run_id: str) -> None:
    """Let the control plane say, when asked for runs that are to end, that this one is."""

    def script(received: Received) -> Reply | None:
        filters = json.loads(received.body)["variables"].get("filters", {})
        is_asked_for = "CANCELING" in filters.get("statuses", [])
        runs = [json.dumps({"run_id": run_id, **CANCELING})] if is_asked_for else []
        data = {"getRuns": runs, "getRunIds": filters.get("runIds")}
        return Reply(content=json.dumps({"data": {"runs": data}}).encode())

    bench.control_plane.script = script


@pytest.fixture
async def loop(bench: Bench) -> OrphansLoop:
    await bench.add("run-1", **STARTED)
    await bench.add("run-2", **{**STARTED, "job_id": "8"})
    return OrphansLoop(bench.context)


async def test_job_of_a_deleted_run_is_ended(bench: Bench, loop: OrphansLoop) -> None:
    """After half a minute, and after it was asked for alone."""
    answer(bench, ["run of run-2"])
    assert await looks(bench, loop, 30) == [False, False]
    assert await looks(bench, loop, 10) == [True, False]


async def test_answer_that_lacks_a_run_once_ends_nothing(bench: Bench, loop: OrphansLoop) -> None:
    """Nor one that lacks it for long, when the run is there after all."""
    answer(bench, ["run of run-2"])
    await looks(bench, loop, 20)
    answer(bench, ["run of run-1", "run of run-2"])
    await looks(bench, loop, 10)
    answer(bench, ["run of run-2"])
    assert await looks(bench, loop, 30) == [False, False]
    answer(bench, ["run of run-2"], one=RUN)
    assert await looks(bench, loop, 60) == [False, False]


async def test_control_plane_that_knows_no_run_at_all_ends_nothing(
    bench: Bench, loop: OrphansLoop
) -> None:
    """It has lost its database, or is another one."""
    answer(bench, [])
    assert await looks(bench, loop, 120) == [False, False]


async def test_single_run_of_a_control_plane_that_knows_none_is_left_alone(
    bench: Bench, loop: OrphansLoop
) -> None:
    """The last page of many, or the last run that goes on, proves no more than the others."""
    answer(bench, [])
    await loop.step()

    def end(db: Any) -> None:
        workers.change(db, "run-2", now=1.0, source="test", concluded_at=1.0)

    await bench.context.store.run(end)
    assert (await looks(bench, loop, 120))[0] is False
    answer(bench, ["run of run-1"])
    await looks(bench, loop, 10)
    answer(bench, [])
    assert (await looks(bench, loop, 50))[0] is True


async def test_draining_agent_ends_runs_that_are_terminated(
    bench: Bench, loop: OrphansLoop
) -> None:
    """It takes no requests: the one to terminate waits in the control plane."""
    await bench.context.store.run(lambda db: bench.context.drain.begin(db, stops=True))
    canceling(bench, "run of run-1")
    await loop.step()
    grace = bench.context.config.runs.grace_seconds
    assert (await bench.job("run-1")).terminate_at == bench.clock.now + grace + 5.0
    assert (await bench.job("run-2")).terminate_at is None
    assert bench.scheduler.signalled == [("7", "INT")]
    assert "Termination requested" in "".join(await bench.messages("event"))
    await loop.step()
    assert bench.scheduler.signalled == [("7", "INT")]


async def test_agent_that_takes_requests_waits_for_the_one_to_terminate(
    bench: Bench, loop: OrphansLoop
) -> None:
    """It comes within seconds, and may be another agent's by now."""
    canceling(bench, "run of run-1")
    await loop.step()
    assert (await bench.job("run-1")).terminate_at is None
    assert bench.scheduler.signalled == []
