"""A run whose job Slurm has ended: the next attempt, its start, and the end of the one before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpc_agent.agent.conclude import ConcludeLoop
from hpc_agent.agent.job_reports import JobReports
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import ControlPlaneError
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.relay.identity import JobReport
from hpc_agent.runs.worker_plan import run_key
from hpc_agent.slurm.state import JobState
from hpc_agent.store import launches, workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement
from tests.agent.conftest import Bench

RUN_ID = "r1"
FIRST, SECOND = run_key(RUN_ID), run_key(RUN_ID, 2)
TOKENS = JobTokens(b"secret")


def never(_run_id: str) -> bool:
    return False


class Story:
    """A run with one job, and what the agent does about its end."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.spooled = False
        self.reports = JobReports(bench.context, TOKENS, spooled=lambda _run_id: self.spooled)
        self.loop = ConcludeLoop(
            bench.context,
            None,  # type: ignore[arg-type]  # no code server is concluded here
            spooled=never,
            revoke=self.reports.forget,
        )

    async def job(self, *, tags: dict[str, str], **changes: Any) -> None:
        """The run's job as Slurm has ended it, or as it runs."""
        run = RunToLaunch(
            run_id=RUN_ID,
            job_name="j",
            location="here",
            tags=tags,
            code_origin={"repository_origin": {}},
        )
        await self.bench.context.store.run(lambda db: launches.keep(db, run, "prod"))
        running = {
            "phase": Phase.RUNNING,
            "job_id": "7",
            "started_at": 990.0,
            "run_id": RUN_ID,
            "is_claimed": True,
        }
        await self.bench.add(FIRST, **(running | changes))

    def run_is(self, status: str) -> None:
        """Let the control plane say how the run stands."""
        run = json.dumps({"status": {"__enum__": f"DagsterRunStatus.{status}"}})
        self.bench.control_plane.answer = {"data": {"runs": {"getRunById": run}}}

    async def lines(self) -> list[str]:
        payloads = await self.bench.messages("event")
        return [json.loads(payload)["dagsterEvent"]["message"] for payload in payloads]

    async def start(self, key: str = FIRST, restart: int = 0) -> tuple[bool, bool, str]:
        """Report a start; return whether to proceed, whether to resume, and why not."""
        identity = await self.reports.identify(TOKENS.token(key))
        assert identity is not None
        report = JobReport(event="started", slurm_job_id="7", restart_count=restart)
        answer = await self.reports.receive(identity, report)
        return answer.proceed, answer.resume, answer.reason


@pytest.fixture
def story(bench: Bench) -> Story:
    return Story(bench)


OUT_OF_MEMORY = {"phase": Phase.ENDED, "state": JobState.OUT_OF_MEMORY, "ended_at": 1000.0}
MORE_MEMORY = {"dagster-hpc/mem": "4G", "dagster-hpc/on-out-of-memory": "resubmit"}


async def test_next_attempt_asks_for_more_and_the_token_of_the_first_is_refused(
    story: Story, bench: Bench
) -> None:
    """From then on the worker of the first attempt can write nothing."""
    await story.job(tags=MORE_MEMORY, **OUT_OF_MEMORY)
    assert await story.reports.identify(TOKENS.token(FIRST)) is not None
    story.run_is("STARTED")
    await story.loop.step()
    second = await bench.job(SECOND)
    assert (second.phase, second.attempt, second.run_id) == (Phase.INTENT, 2, RUN_ID)
    script = bench.context.preparation.work.script_of(SECOND).read_text()
    assert "#SBATCH --mem=8G" in script
    assert await story.reports.identify(TOKENS.token(FIRST)) is None
    assert await story.reports.identify(TOKENS.token(SECOND)) is not None
    assert await story.lines() == [
        "Job 7 ended: OUT_OF_MEMORY; attempt 2 of 3 is submitted with mem 8G (was 4G)."
    ]


async def test_each_attempt_asks_for_more_than_the_one_before(story: Story, bench: Bench) -> None:
    """Not for more than the first."""
    await story.job(tags=MORE_MEMORY, **OUT_OF_MEMORY)
    story.run_is("STARTED")
    await story.loop.step()
    await bench.context.store.run(_second_ends)
    await story.loop.step()
    third = await bench.job(run_key(RUN_ID, 3))
    assert json.loads(third.overrides) == {"mem": "16G"}


def _second_ends(db: Any) -> None:
    for phase in (Phase.QUEUED, Phase.RUNNING, Phase.ENDED):
        changes = {"outcome": JobState.OUT_OF_MEMORY, "ended_at": 1000.0}
        workers.change(db, SECOND, now=2.0, source="t", phase=phase, **changes)


SLOT = {"cpus": 1, "memory_mb": 6144, "seconds": 5400}


def with_slots(**options: str) -> dict[str, Any]:
    """Return a pool with that slot, and what jobs of their own ask for."""
    return {
        "pools": {"short": {"options": {"cpus-per-task": 4, "time": "8:00:00"}, "slot": SLOT}},
        "locations": {"here": {"pool": "short"}},
        "runs": {"options": options},
    }


SMALL, LARGE = {"mem-per-cpu": "1G", "time": "1:00:00"}, {"mem": "64G", "time": "4:00:00"}


@pytest.mark.parametrize(
    ("settings", "state", "policy", "more"),
    [
        (with_slots(**SMALL), JobState.OUT_OF_MEMORY, "on-out-of-memory", {"mem": "12G"}),
        (with_slots(**SMALL), JobState.TIMEOUT, "on-timeout", {"time": "03:00:00"}),
        (with_slots(**LARGE), JobState.OUT_OF_MEMORY, "on-out-of-memory", {"mem": "64G"}),
        (with_slots(**LARGE), JobState.TIMEOUT, "on-timeout", {"time": "04:00:00"}),
    ],
)
async def test_attempt_after_a_slot_asks_for_more_than_the_slot_had(
    story: Story, bench: Bench, state: JobState, policy: str, more: dict[str, str]
) -> None:
    """And for no less than a job of its own does, which may be more or less than the slot."""
    ended = OUT_OF_MEMORY | {"state": state, "placement": Placement.POOL, "pool": "short"}
    await story.job(tags={f"dagster-hpc/{policy}": "resubmit"}, **ended)
    story.run_is("STARTED")
    await story.loop.step()
    second = await bench.job(SECOND)
    assert json.loads(second.overrides) == more
    script = bench.context.preparation.work.script_of(SECOND).read_text()
    assert all(f"#SBATCH --{name}={value}" in script for name, value in more.items())
    assert second.placement is Placement.JOB
    assert "mem" not in more or "mem-per-cpu" not in script


async def test_run_fails_when_attempts_are_used_up(story: Story) -> None:
    """The message says so."""
    await story.job(tags=MORE_MEMORY, attempt=3, **OUT_OF_MEMORY)
    story.run_is("STARTED")
    await story.loop.step()
    assert "all 3 attempts of on_out_of_memory are used up" in str(
        await story.bench.messages("event")
    )


async def test_run_that_closed_itself_gets_no_further_attempt(story: Story, bench: Bench) -> None:
    """Dagster's own retries decide then."""
    await story.job(tags=MORE_MEMORY, **OUT_OF_MEMORY)
    story.run_is("FAILURE")
    await story.loop.step()
    assert await bench.context.store.run(lambda db: workers.find(db, SECOND)) is None


async def test_run_terminated_meanwhile_gets_no_further_attempt(story: Story, bench: Bench) -> None:
    """A user's end is an end."""
    await story.job(tags=MORE_MEMORY, terminate_at=999.0, **OUT_OF_MEMORY)
    story.run_is("STARTED")
    await story.loop.step()
    assert await bench.context.store.run(lambda db: workers.find(db, SECOND)) is None
    assert "PIPELINE_CANCELED" in str(await bench.messages("event"))


async def test_restart_of_a_started_run_goes_on_with_it(story: Story, bench: Bench) -> None:
    """And of one of which nothing has happened yet, executes it."""
    await story.job(tags={"dagster-hpc/on-preempt": "requeue"})
    story.run_is("STARTING")
    assert await story.start(restart=1) == (True, False, "")
    story.run_is("STARTED")
    assert await story.start(restart=2) == (True, True, "")
    assert (await bench.job(FIRST)).restart_count == 2
    assert "attempt 3 goes on with the run" in (await story.lines())[-1]


async def test_restart_without_a_policy_does_not_run(story: Story) -> None:
    """An administrator may requeue any job."""
    await story.job(tags={})
    story.run_is("STARTED")
    proceed, _, reason = await story.start(restart=1)
    assert not proceed
    assert "no policy lets go on" in reason


@pytest.mark.parametrize("restart", [0, 1])
async def test_first_start_of_a_run_is_executed(story: Story, restart: int) -> None:
    """Whatever the status says, and however often Slurm has tried: nobody else has started it.

    A node whose slurmd is dead gives the job back, which counts as a restart.
    """
    await story.job(tags={}, is_claimed=False)
    story.run_is("STARTED")
    assert await story.start(restart=restart) == (True, False, "")


async def test_start_of_an_earlier_try_is_refused(story: Story) -> None:
    """It comes late, from a node that Slurm took for dead."""
    await story.job(tags={"dagster-hpc/on-preempt": "requeue"}, restart_count=1)
    story.run_is("STARTED")
    assert (await story.start(restart=0))[0] is False


async def test_restart_waits_until_it_is_known_how_the_run_stands(story: Story) -> None:
    """Executing a started run would be a mistake, and so would going on with one that was not."""
    await story.job(tags={"dagster-hpc/on-preempt": "requeue"})
    story.run_is("STARTING")
    story.spooled = True
    with pytest.raises(ControlPlaneError, match="wait for the control plane"):
        await story.start(restart=1)
    story.spooled = False
    story.bench.control_plane.status = 503
    with pytest.raises(ControlPlaneError):
        await story.start(restart=1)
