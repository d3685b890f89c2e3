"""When the use of resources is asked for, and when it is told without an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from hpc_agent.agent.measure import MeasureLoop
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.runs.asset_records import MOST
from hpc_agent.slurm.scheduler import Usage
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.agent.conftest import Bench

ENDED: dict[str, Any] = {
    "phase": Phase.ENDED,
    "state": JobState.COMPLETED,
    "job_id": "7",
    "submitted_at": 900.0,
    "started_at": 910.0,
    "ended_at": 1000.0,
    "concluded_at": 1000.0,
}
USED = Usage(allocated_cpus=2, cpu_seconds=90.0, nodes=1)


def materialized(
    name: str, partition: str | None = None, at: float = 950.0, step: str = "op"
) -> dict[str, Any]:
    """A record of a run's log, as the control plane returns it."""
    made: dict[str, Any] = {"asset_key": {"path": [name]}, "partition": partition}
    event = json.dumps({"step_key": step, "event_specific_data": {"materialization": made}})
    return {"eventLogEntry": {"timestamp": at, "dagsterEvent": event}}


def observed(name: str, label: str) -> dict[str, Any]:
    """An asset whose last observation has metadata of this name."""
    seen = {"asset_key": {"path": [name]}, "metadata_entries": [{"label": label}]}
    event = json.dumps({"event_specific_data": {"asset_observation": seen}})
    last = {"eventLogEntry": {"timestamp": 1.0, "dagsterEvent": event}}
    return {"assetEntry": {"assetKey": {"path": [name]}, "lastObservationRecord": last}}


def knows(
    bench: Bench,
    *made: dict[str, Any],
    over: Sequence[str] = ("run of run-1",),
    assets: Sequence[dict[str, Any]] = (),
    has_more: bool = False,
) -> None:
    """Let the control plane know of runs that are over, and of what they have materialized."""
    status = {"__enum__": "DagsterRunStatus.SUCCESS"}
    runs = [json.dumps({"run_id": run, "status": status}) for run in over]
    logs = {
        "getRecordsForRun": {"records": list(made), "hasMore": has_more},
        "getAssetRecords": list(assets),
    }
    bench.control_plane.answer = {"data": {"runs": {"getRuns": runs}, "eventLogs": logs}}


async def observations(bench: Bench) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Return the assets that were told of, each with its partition and the metadata."""
    found = []
    for payload in await bench.messages("event"):
        event = json.loads(payload)["dagsterEvent"]
        if event["eventTypeValue"] == "ASSET_OBSERVATION":
            seen = json.loads(event["eventSpecificData"])["asset_observation"]
            entries = {
                entry["label"]: next(
                    value for name, value in entry["entry_data"].items() if name != "__class__"
                )
                for entry in seen["metadata_entries"]
            }
            found.append((seen["asset_key"]["path"][0], seen["partition"], entries))
    return found


async def told(bench: Bench) -> list[str]:
    """Return the lines in the runs' logs."""
    payloads = await bench.messages("event")
    return [json.loads(payload)["dagsterEvent"]["message"] for payload in payloads]


async def test_accounting_is_given_time_and_asked_once_for_many(bench: Bench) -> None:
    """slurmdbd learns of an end late."""
    knows(bench, over=[f"run of run-{number}" for number in range(20)])
    for number in range(20):
        await bench.add(f"run-{number}", **(ENDED | {"job_id": str(number)}))
        bench.scheduler.used[str(number)] = USED
    measure = MeasureLoop(bench.context)
    await measure.step()
    assert await told(bench) == []
    bench.clock.now += 10
    await measure.step()
    assert len(await told(bench)) == 20
    assert (await told(bench))[0] == "Job 0 used CPU 50%."
    assert bench.scheduler.usage_queries == 1


async def test_use_of_a_job_is_told_once(bench: Bench) -> None:
    """Also after a restart of the agent; and so of its assets."""
    knows(bench, materialized("a"))
    await bench.add(**ENDED)
    bench.scheduler.used["7"] = USED
    bench.clock.now += 10
    await MeasureLoop(bench.context).step()
    await MeasureLoop(bench.context).step()
    assert len(await told(bench)) == 2
    assert len(await observations(bench)) == 1


async def test_without_accounting_the_exit_record_is_told_after_a_few_tries(bench: Bench) -> None:
    """What the node program measured is better than nothing."""
    knows(bench)
    await bench.add(**ENDED)
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir()
    (directory / "exit.json").write_text(
        json.dumps({"exit_code": 0, "cpu_seconds": 45.0, "allocation": {"cpus": 1, "nodes": 1}})
    )
    measure = MeasureLoop(bench.context)
    for seconds in (10, 40):
        bench.clock.now = 1000.0 + seconds
        await measure.step()
    assert await told(bench) == []
    bench.clock.now = 1100.0
    await measure.step()
    assert await told(bench) == ["Job 7 used CPU 50%."]
    assert bench.scheduler.usage_queries == 3


async def test_accounting_that_is_away_keeps_the_figures_of_no_job_back(bench: Bench) -> None:
    """slurmdbd may be down for days; the exit record is told in time."""
    knows(bench)
    await bench.add(**ENDED)
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir()
    (directory / "exit.json").write_text(
        json.dumps({"exit_code": 0, "cpu_seconds": 45.0, "allocation": {"cpus": 1, "nodes": 1}})
    )
    bench.scheduler.broken = SchedulerUnavailableError("sacct: Connection refused")
    bench.clock.now = 1100.0
    await MeasureLoop(bench.context).step()
    assert await told(bench) == ["Job 7 used CPU 50%."]


async def test_jobs_of_long_ago_are_left_alone(bench: Bench) -> None:
    """An agent that was away for a day does not write into yesterday's runs."""
    await bench.add(**ENDED)
    bench.clock.now += 24 * 3600
    await MeasureLoop(bench.context).step()
    assert await told(bench) == []


async def test_assets_of_a_run_have_what_its_job_used(bench: Bench) -> None:
    """Each partition once, with the figures of the whole job and none that nobody knows."""
    knows(bench, materialized("a"), materialized("b", "north"), materialized("b", "north"))
    await bench.add(**ENDED)
    bench.scheduler.used["7"] = USED
    bench.clock.now += 10
    await MeasureLoop(bench.context).step()
    found = await observations(bench)
    assert [(name, partition) for name, partition, _ in found] == [("a", None), ("b", "north")]
    for _, _, entries in found:
        assert entries == {
            "dagster-hpc/elapsed_seconds": 90.0,
            "dagster-hpc/queue_wait_seconds": 0.0,
            "dagster-hpc/cpus": 2,
            "dagster-hpc/cpu_efficiency": 50.0,
            "dagster-hpc/node_hours": 0.025,
            "dagster-hpc/job": "7",
        }


async def test_assets_that_somebody_else_observes_are_left_alone(bench: Bench) -> None:
    """Whoever reads the last observation, a freshness check for one, is to find his own."""
    knows(
        bench,
        materialized("theirs"),
        materialized("ours"),
        assets=[
            observed("theirs", "dagster/last_updated_timestamp"),
            observed("ours", "dagster-hpc/cpus"),
        ],
    )
    await bench.add(**ENDED)
    bench.scheduler.used["7"] = USED
    bench.clock.now += 10
    await MeasureLoop(bench.context).step()
    assert [name for name, _, _ in await observations(bench)] == ["ours"]
    assert "1 with observations of their own are left alone" in (await told(bench))[-1]


async def test_only_so_many_assets_are_told_of_and_the_log_says_so(bench: Bench) -> None:
    """A run of thousands of partitions writes no thousands of events."""
    knows(bench, *(materialized("a", str(number)) for number in range(MOST + 1)), has_more=True)
    await bench.add(**ENDED)
    bench.scheduler.used["7"] = USED
    bench.clock.now += 10
    await MeasureLoop(bench.context).step()
    assert len(await observations(bench)) == MOST
    assert f"the first {MOST} are noted" in (await told(bench))[-1]


async def test_another_attempt_has_what_it_has_materialized_itself(bench: Bench) -> None:
    """Not what the job before it has: that one is another."""
    knows(bench, materialized("before", at=905.0), materialized("after", at=950.0))
    await bench.add(**(ENDED | {"attempt": 2}))
    bench.scheduler.used["7"] = USED
    bench.clock.now += 10
    await MeasureLoop(bench.context).step()
    assert [name for name, _, _ in await observations(bench)] == ["after"]


async def test_assets_of_a_step_have_what_its_own_job_used(bench: Bench) -> None:
    """While the run goes on; the run worker's own job says nothing of them."""
    knows(bench, materialized("a", step="fit"), materialized("b", step="plot"), over=[])
    fit = {"kind": WorkerKind.STEP, "step": "fit", "run_id": "run of run-1", "job_id": "8"}
    await bench.add("stp-1", **(ENDED | fit))
    await bench.add("run-1", **ENDED)
    bench.scheduler.used = {"7": USED, "8": USED}
    bench.clock.now += 10
    measure = MeasureLoop(bench.context)
    await measure.step()
    ((name, _, entries),) = await observations(bench)
    assert (name, entries["dagster-hpc/job"]) == ("a", "8")
    knows(bench, materialized("a", step="fit"))
    bench.clock.now += 30
    await measure.step()
    assert len(await observations(bench)) == 1


@pytest.mark.parametrize("more", [{"attempt": 2}, {"step_attempt": 1}])
async def test_step_that_was_tried_again_has_what_it_has_made_itself(
    bench: Bench, more: dict[str, int]
) -> None:
    """By the agent or by Dagster: the job before it was another."""
    knows(
        bench,
        materialized("before", at=905.0, step="fit"),
        materialized("after", at=950.0, step="fit"),
    )
    await bench.add(**(ENDED | {"kind": WorkerKind.STEP, "step": "fit"} | more))
    bench.scheduler.used["7"] = USED
    bench.clock.now += 10
    await MeasureLoop(bench.context).step()
    assert [name for name, _, _ in await observations(bench)] == ["after"]


async def test_steps_of_seconds_tell_no_asset(bench: Bench) -> None:
    """A run may have thousands of them, and each would ask and write."""
    knows(bench, materialized("a", step="fit"))
    short = {"kind": WorkerKind.STEP, "step": "fit", "started_at": 970.0}
    await bench.add(**(ENDED | short))
    bench.scheduler.used["7"] = USED
    bench.clock.now += 10
    await MeasureLoop(bench.context).step()
    assert await observations(bench) == []


async def test_assets_wait_for_the_end_of_their_run(bench: Bench) -> None:
    """Events may be on their way; a run that goes on in another attempt is not waited for."""
    knows(bench, materialized("a"), over=[])
    await bench.add(**ENDED)
    bench.scheduler.used["7"] = USED
    measure = MeasureLoop(bench.context)
    bench.clock.now = 1010.0
    await measure.step()
    assert await told(bench) == []
    bench.clock.now = 1100.0
    await measure.step()
    assert (await told(bench))[0] == "Job 7 used CPU 50%."


async def test_assets_wait_for_a_control_plane_that_is_away(bench: Bench) -> None:
    """Not for ever: in the end the run's line is written without them."""
    knows(bench, materialized("a"))
    bench.control_plane.status = 503
    await bench.add(**ENDED)
    bench.scheduler.used["7"] = USED
    measure = MeasureLoop(bench.context)
    bench.clock.now = 1100.0
    await measure.step()
    assert await told(bench) == []
    bench.clock.now = 4100.0
    await measure.step()
    assert await told(bench) == ["Job 7 used CPU 50%."]


@pytest.mark.parametrize("broken", [{"records": None}, {"records": [{"eventLogEntry": {}}]}, None])
async def test_answer_that_cannot_be_read_keeps_no_line_back(bench: Bench, broken: Any) -> None:
    """The run's log has what is known."""
    knows(bench)
    assert bench.control_plane.answer is not None
    bench.control_plane.answer["data"]["eventLogs"]["getRecordsForRun"] = broken
    await bench.add(**ENDED)
    bench.scheduler.used["7"] = USED
    bench.clock.now += 10
    await MeasureLoop(bench.context).step()
    assert await told(bench) == ["Job 7 used CPU 50%."]
