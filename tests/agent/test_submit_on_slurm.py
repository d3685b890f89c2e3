"""Bursts on a real Slurm: how many submissions they cost, and that each run runs once."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hpc_agent.agent.cancel import CancelLoop
from hpc_agent.agent.context import Context
from hpc_agent.agent.loop import repeat
from hpc_agent.agent.submit import SubmitLoop
from hpc_agent.agent.watch import WatchLoop
from hpc_agent.clock import SteadyClock
from hpc_agent.config import Environment
from hpc_agent.jobs.array_script import likeness_of
from hpc_agent.jobs.directory import NodeSpec
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.slurm.cli import slurm_on_this_host
from hpc_agent.slurm.scheduler import array_id
from hpc_agent.slurm.state import JobState
from hpc_agent.store import selection, workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers.changes import Changes, Signature
from tests.agent.conftest import Bench
from tests.cluster import SlurmCluster

pytestmark = pytest.mark.slurm

LIMIT_SECONDS = 100.0
# These jobs have no node program; what it would do first, they do: claim.
TELL = (
    'echo "${SLURM_ARRAY_JOB_ID:-alone}" >> ran; '
    'id="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"; '
    """printf '{"slurm_job_id": "%s"}' "$id" > claim"""
)


SIGNATURE = Signature(scheduler="slurm", agent_id="agent", agent_label=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An agent's loops on a real Slurm; each call of sbatch leaves a line in ``calls``."""

    bench: Bench
    context: Context
    directory: Path

    def sbatch(self, *lines: str) -> None:
        """Put a wrapper in sbatch's place; in it, ``sbatch`` is the real one."""
        real = shutil.which("sbatch", path="/usr/bin:/usr/local/bin") or "sbatch"
        script = "\n".join(
            ["#!/bin/bash", f'echo "$@" >> {self.directory}/calls', f'sbatch() {{ {real} "$@"; }}']
        )
        path = self.directory / "sbatch"
        path.write_text("\n".join([script, *(lines or ('sbatch "$@"',))]) + "\n")
        path.chmod(0o755)

    def calls(self) -> list[str]:
        """Return the arguments of each call of sbatch."""
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    async def burst(self, count: int, *commands: str, held: bool = False) -> list[str]:
        """Make intents of runs that do this; return their keys."""
        keys = [f"run-{number}" for number in range(count)]
        for key in keys:
            script = await self.context.preparation.prepare(_plan(key, commands, held=held))
            likeness = await asyncio.to_thread(likeness_of, script, key)
            await self.bench.add(key, likeness=likeness, created_at=time.time())
        return keys

    async def jobs(self) -> dict[str, Worker]:
        """Return all jobs by key."""
        every = await self.context.store.run(lambda db: selection.find(db, selection.EVERYTHING))
        return {job.key: job for job in every}

    async def until(self, holds: Callable[[dict[str, Worker]], bool]) -> dict[str, Worker]:
        """Return the jobs once this holds of them."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not holds(found := await self.jobs()):
            assert time.monotonic() < deadline, Counter(
                (job.phase.name, job.state.name, job.reason) for job in found.values()
            )
            await asyncio.sleep(0.1)
        return found

    async def end_by_request(self, key: str) -> None:
        """Ask a job to end, as a termination does when its grace is over."""
        now = time.time()
        await self.context.store.run(
            lambda db: workers.change(db, key, now=now, source="request", terminate_at=now)
        )
        self.context.bells.cancel.ring()

    def ran(self, key: str) -> list[str]:
        """Return what a job's starts have written."""
        path = self.context.preparation.work.of(key) / "ran"
        return path.read_text().split() if path.exists() else []

    @contextlib.asynccontextmanager
    async def loops(self) -> AsyncIterator[None]:
        """Run the loops as the agent does; leaving the block is the agent's sudden death."""
        context, tasks = self.context, self.context.tasks
        bells = context.bells
        running = [
            asyncio.create_task(repeat("submit", SubmitLoop(context).step, bells.submit)),
            asyncio.create_task(repeat("watch", WatchLoop(context).step, bells.watch)),
            asyncio.create_task(repeat("cancel", CancelLoop(context).step, bells.cancel)),
        ]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await tasks.dismiss()


def _plan(key: str, commands: tuple[str, ...], *, held: bool) -> JobPlan:
    spec = NodeSpec(
        key=key,
        kind=WorkerKind.RUN_WORKER,
        argv=["true"],
        environment={},
        working_directory=None,
        grace_seconds=1,
    )
    begin = [Setting("begin", "now+1hour", "a test")] if held else []
    return JobPlan(
        spec=spec,
        title=f"run of {key}",
        settings=[Setting("mem", "10", "a test"), *begin],
        # What a run does is all in its set-up here: the node program has tests of its own.
        environment=Environment(setup=[TELL, *commands, "exit 0"]),
    )


@pytest.fixture
async def site(bench: Bench, slurm_cluster: SlurmCluster, tmp_path: Path) -> AsyncIterator[Site]:
    directory = tmp_path / "bin"
    directory.mkdir()
    path = f"{directory}:{slurm_cluster.environment['PATH']}"
    scheduler = slurm_on_this_host({**slurm_cluster.environment, "PATH": path}, burst=1000)
    config = bench.context.config
    # Nobody here reports a start or an end.
    often = config.scheduler.model_copy(update={"poll_seconds": 1})
    config = config.model_copy(update={"scheduler": often})
    clock = SteadyClock()
    made = Site(
        bench=bench,
        context=replace(
            bench.context,
            config=config,
            scheduler=scheduler,
            clock=clock,
            changes=Changes(bench.context.store, SIGNATURE, clock=clock),
        ),
        directory=directory,
    )
    made.sbatch()
    yield made
    left = [job for job in (await made.jobs()).values() if job.phase.is_submitted]
    for submission in {array_id(str(job.job_id)) for job in left}:
        await scheduler.cancel(submission)


def all_in(*phases: Phase) -> Callable[[dict[str, Worker]], bool]:
    """Whether all jobs are in one of these phases."""
    return lambda found: all(job.phase in phases for job in found.values())


async def test_three_hundred_runs_cost_few_submissions_and_run_once(site: Site) -> None:
    """Each is a job of its own, seen by one query for all; a part of them is enough to end."""
    keys = await site.burst(300)
    async with site.loops():
        found = await site.until(
            lambda found: sum(job.phase is Phase.ENDED for job in found.values()) >= 60
        )
    assert len(site.calls()) <= 3
    assert len({job.job_id for job in found.values()}) == 300
    ended = [key for key in keys if found[key].phase is Phase.ENDED]
    assert {found[key].state for key in ended} == {JobState.COMPLETED}
    assert {len(site.ran(key)) for key in ended} == {1}
    assert max(len(site.ran(key)) for key in keys) == 1


async def test_tasks_are_cancelled_one_by_one(site: Site) -> None:
    """One that runs and one that waits; the others go on."""
    keys = await site.burst(20, "sleep 300")
    async with site.loops():
        found = await site.until(
            lambda found: {Phase.QUEUED, Phase.RUNNING} == {job.phase for job in found.values()}
        )
        running = next(key for key in keys if found[key].phase is Phase.RUNNING)
        waiting = next(key for key in reversed(keys) if found[key].phase is Phase.QUEUED)
        await site.end_by_request(running)
        await site.end_by_request(waiting)
        found = await site.until(
            lambda found: found[running].phase.is_final and found[waiting].phase.is_final
        )
    assert [(found[key].phase, found[key].state) for key in (running, waiting)] == [
        (Phase.ENDED, JobState.CANCELLED)
    ] * 2
    assert site.ran(waiting) == []
    others = [job for key, job in found.items() if key not in {running, waiting}]
    assert not any(job.phase.is_final for job in others)


async def test_array_of_an_sbatch_that_was_killed_is_found(site: Site) -> None:
    """It had made the array, and did not live to tell."""
    site.sbatch('sbatch "$@" >/dev/null', "kill -9 $$")
    await site.burst(30, held=True)
    async with site.loops():
        found = await site.until(all_in(Phase.QUEUED))
    assert len(site.calls()) == 1
    assert {str(job.job_id).partition("_")[2] for job in found.values()} == {
        str(job.array_index) for job in found.values()
    }


async def test_agent_that_dies_between_intent_and_answer_submits_nothing_twice(site: Site) -> None:
    """The array is made, sbatch's answer dies with the agent, and the next agent finds it."""
    site.sbatch('sbatch "$@" >/dev/null', f"touch {site.directory}/made", "sleep 300")
    keys = await site.burst(30)
    async with site.loops():
        await site.until(lambda _: (site.directory / "made").exists())
    assert {job.phase for job in (await site.jobs()).values()} == {Phase.SUBMITTING}
    site.sbatch()
    async with site.loops():
        await site.until(all_in(Phase.ENDED))
    assert {len(site.ran(key)) for key in keys} == {1}
    assert len(site.calls()) == 1


async def test_array_beyond_the_submit_limit_goes_in_parts(site: Site) -> None:
    """Slurm's words for it are those of 22.05; the limit here is of eight tasks a submission."""
    site.sbatch(
        'for word in "$@"; do case "$word" in --array=0-*) last=${word#--array=0-} ;; esac; done',
        'if [ "${last:-0}" -ge 8 ]; then',
        '  echo "sbatch: error: AssocMaxSubmitJobLimit" >&2',
        '  echo "sbatch: error: Batch job submission failed: Worker violates accounting/QOS policy'
        " (job submit limit, user's size and/or time limits)\" >&2",
        "  exit 1",
        "fi",
        'sbatch "$@"',
    )
    keys = await site.burst(20)
    async with site.loops():
        await site.until(all_in(Phase.ENDED))
    assert {len(site.ran(key)) for key in keys} == {1}
    sizes = [call.split("--array=0-")[1].split()[0] for call in site.calls()[:3]]
    assert sizes == ["19", "9", "4"]


async def test_where_sbatch_refuses_arrays_runs_go_one_by_one(site: Site) -> None:
    """A submit plugin may want none, and says so in its own words."""
    site.sbatch(
        'case "$*" in *--array=*)',
        '  echo "sbatch: error: job arrays are not allowed in this partition" >&2',
        '  echo "sbatch: error: Batch job submission failed: Unspecified error" >&2',
        "  exit 1 ;;",
        "esac",
        'sbatch "$@"',
    )
    keys = await site.burst(6)
    async with site.loops():
        await site.until(all_in(Phase.ENDED))
    assert [site.ran(key) for key in keys] == [["alone"]] * 6
    assert len(site.calls()) == 7
