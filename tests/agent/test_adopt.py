"""Jobs that the state database knows nothing of: which there are, and which are taken over."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from hpc_agent.agent.adopt import adopt
from hpc_agent.agent.purge import collect_garbage
from hpc_agent.agent.watch import WatchLoop
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import UsageError
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.runs.worker_plan import plan_run, run_key
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store import launches, workers
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Bench
from tests.agent.test_serve import RUN

KEY, SECOND, OTHER = run_key("r1"), run_key("r1", 2), run_key("another")
ARRAY, SERVER = f"arr-{'0' * 20}", f"srv-{'0' * 20}"


def control_plane_has(bench: Bench, status: str | None) -> None:
    """Let it have run r1, in this state, or not."""
    run = status and json.dumps(RUN | {"status": {"__enum__": f"DagsterRunStatus.{status}"}})
    bench.control_plane.answer = {"data": {"runs": {"getRunById": run}}}


async def submitted_once(bench: Bench, attempt: int = 1) -> None:
    """Write the directory of r1's job, as an agent did whose database is gone."""
    run = RunToLaunch(
        run_id="r1", job_name="j", location="here", tags={},
        code_origin={"repository_origin": {"executable_path": "/py"}},
    )  # fmt: skip
    plan = plan_run(bench.context.config, run, deployment="prod", attempt=attempt)
    await bench.context.preparation.prepare(plan)


def in_queue(bench: Bench, job_id: str, key: str, **changes: Any) -> None:
    """Let Slurm have a job with this key."""
    values: dict[str, Any] = {
        "state": JobState.RUNNING,
        "raw_state": "RUNNING",
        "source": "squeue",
        "name": f"hpc-agent:{key}",
        "comment": key,
        "script": str(bench.context.preparation.work.script_of(key)),
        "nodes": "c1",
    }
    bench.scheduler.queued.append(JobRecord(job_id=job_id, **(values | changes)))


async def rows(
    bench: Bench, job_ids: list[str] | None = None, *, dry_run: bool = False
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(await adopt(bench.context, job_ids, dry_run=dry_run))
    return found


async def test_unknown_job_of_a_run_is_adopted(bench: Bench) -> None:
    """It is tracked from then on, its run is told, and a later attempt could be planned."""
    await submitted_once(bench)
    in_queue(bench, "17", KEY)
    control_plane_has(bench, "STARTED")
    (listed,) = await rows(bench, dry_run=True)
    assert (listed["job_id"], listed["run_id"], listed["is_adopted"]) == ("17", "r1", False)
    assert listed["why_not"] == ""
    assert await bench.context.store.run(lambda db: workers.find(db, KEY)) is None

    (row,) = await rows(bench)
    await WatchLoop(bench.context).step()

    assert row["is_adopted"]
    worker = await bench.job(KEY)
    assert (worker.phase, worker.job_id, worker.run_id) == (Phase.RUNNING, "17", "r1")
    assert (worker.deployment, worker.location, worker.job_name) == ("prod", "here", "j")
    assert "takes it over" in " ".join(await bench.messages("event"))
    assert await bench.context.store.run(lambda db: launches.find(db, "r1")) is not None
    assert await rows(bench) == []


async def test_later_attempt_in_an_array_is_adopted_as_that(bench: Bench) -> None:
    """Its directory is found by the array's link, and the array's other tasks are nobody's."""
    await submitted_once(bench, attempt=2)
    work = bench.context.preparation.work
    await asyncio.to_thread(work.link_tasks, ARRAY, [OTHER, SECOND])
    for index in (0, 1):
        in_queue(bench, f"17_{index}", ARRAY)
    control_plane_has(bench, "STARTED")

    missing, adopted = await rows(bench)

    assert "names no run" in missing["why_not"]
    assert (adopted["key"], adopted["is_adopted"]) == (SECOND, True)
    worker = await bench.job(SECOND)
    assert (worker.attempt, worker.array_key, worker.array_index) == (2, ARRAY, 1)


async def test_job_that_waits_gets_a_token_that_this_agent_knows(bench: Bench) -> None:
    """The one in its directory was made with the secret of a database that is gone."""
    await submitted_once(bench)
    token = bench.context.preparation.work.of(KEY) / "token"
    token.write_text("of another secret")
    in_queue(bench, "17", KEY, state=JobState.PENDING, nodes="")
    control_plane_has(bench, "STARTING")

    await rows(bench)

    assert JobTokens(b"secret").key(token.read_text()) == KEY


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "CANCELED", None])
async def test_job_of_a_run_that_is_over_or_gone_is_not_adopted(
    bench: Bench, status: str | None
) -> None:
    """And it is said how to end it."""
    await submitted_once(bench)
    in_queue(bench, "17", KEY)
    control_plane_has(bench, status)

    (row,) = await rows(bench)

    wanted = f"run r1 is {status}: `scancel 17`" if status else "no deployment that this agent"
    assert wanted in row["why_not"]
    assert await bench.context.store.run(lambda db: workers.find(db, KEY)) is None


async def test_run_that_has_a_worker_already_gets_no_second_one(bench: Bench) -> None:
    """It was launched anew meanwhile."""
    await submitted_once(bench)
    await bench.add(SECOND, run_id="r1", attempt=2)
    in_queue(bench, "17", KEY)
    control_plane_has(bench, "STARTED")

    (row,) = await rows(bench)

    assert f"run r1 has {SECOND}" in row["why_not"]


async def test_what_others_ask_for_anew_is_not_adopted(bench: Bench) -> None:
    """Code servers, which the agent has started by then, and jobs of steps."""
    in_queue(bench, "17", SERVER)
    in_queue(bench, "18", f"stp-{'0' * 20}")
    server, step = await rows(bench)
    assert "a code server" in server["why_not"]
    assert "the job of a step" in step["why_not"]


@pytest.mark.parametrize(
    "spec",
    ["", "[]", "{}", '{"key": 5, "argv": ["{}"]}', '{"key": "KEY", "argv": ["[1]"]}', "[" * 100_000,
     '{"key": "KEY", "argv": ["{\\"pipeline_run_id\\": \\"another\\"}"]}'],
)  # fmt: skip
async def test_directory_that_speaks_of_nobody_or_of_another_run_adopts_nothing(
    bench: Bench, spec: str
) -> None:
    """User code can write there: a run's key is made of its id, and cannot be had for another."""
    await submitted_once(bench)
    path = bench.context.preparation.work.of(KEY) / "spec.json"
    path.write_text(spec.replace("KEY", KEY))
    in_queue(bench, "17", KEY)
    control_plane_has(bench, "STARTED")

    (row,) = await rows(bench)

    assert "names no run" in row["why_not"] or "whose job it is not" in row["why_not"]


async def test_jobs_of_others_are_not_listed(bench: Bench) -> None:
    """Of another agent of this account, of nobody's agent, and those that have ended."""
    in_queue(bench, "17", KEY, script=f"/another/work/jobs/{KEY}/job.sh")
    in_queue(bench, "18", "my own job", script="/home/me/job.sh")
    in_queue(bench, "19", OTHER, state=JobState.COMPLETED)
    in_queue(bench, "20", OTHER, script="")
    assert await rows(bench) == []
    with pytest.raises(UsageError, match="no unknown job of this agent in the queue: 17"):
        await rows(bench, ["17"])


async def test_garbage_is_left_while_its_owner_may_be_unknown(bench: Bench) -> None:
    """What looks like a directory of nobody is that of a job that runs."""
    await submitted_once(bench)
    in_queue(bench, "17", KEY)

    said = await collect_garbage(bench.context, older_than_seconds=1, dry_run=False)

    assert "hpc-agent adopt" in said
    assert bench.context.preparation.work.script_of(KEY).exists()
