"""Runs launched together become tasks of a job array, and nobody can tell them from single jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from hpc_agent.demo.facts import gather
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.store.selection import EVERYTHING
from tests.e2e.test_runs import engine_lines, nap

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]


def test_runs_launched_together_are_tasks_that_run_and_end_one_by_one(stack: Stack) -> None:
    """Events, state and the job's id as with a single job; one is terminated, the others go on."""
    agent = psutil.Process(stack.agent.pid)
    with _suspended(*_daemons(stack)):
        run_ids = [nap(stack, 0 if number else 600) for number in range(6)]
        agent.suspend()
    with _suspended(agent):
        for run_id in run_ids:
            wait_for(
                f"run {run_id} is not taken out of the queue",
                lambda run_id=run_id: stack.webserver.status(run_id) == "STARTING",  # type: ignore[misc]
                seconds=60,
            )
    jobs = {
        run_id: wait_for(
            f"run {run_id} is not submitted",
            lambda run_id=run_id: _submitted(stack, run_id),  # type: ignore[misc]
            seconds=90,
        )
        for run_id in run_ids
    }
    submissions = {job_id.partition("_")[0] for job_id in jobs.values()}
    assert len(submissions) < len(run_ids)
    assert len(set(jobs.values())) == len(run_ids)
    stack.webserver.terminate(run_ids[0])
    assert [stack.wait_finished(run_id) for run_id in run_ids] == ["CANCELED"] + ["SUCCESS"] * 5
    task = next(run_id for run_id in run_ids[1:] if "_" in jobs[run_id])
    lines = engine_lines(stack, task)
    assert f"Run worker submitted as Slurm job {jobs[task]}." in lines
    assert any(line.startswith(f"Job {jobs[task]} runs on ") for line in lines)
    assert gather(stack, task, location="example").run_worker.job_id == jobs[task]


def _daemons(stack: Stack) -> list[psutil.Process]:
    processes = psutil.Process(stack.control_plane.pid).children(recursive=True)
    return [process for process in processes if "daemon" in " ".join(process.cmdline())]


@contextmanager
def _suspended(*processes: psutil.Process) -> Iterator[None]:
    """Let work gather before these processes."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def _submitted(stack: Stack, run_id: str) -> str | None:
    for job in read_jobs(stack.config, EVERYTHING):
        if job["run_id"] == run_id and job["job_id"] is not None:
            return str(job["job_id"])
    return None
