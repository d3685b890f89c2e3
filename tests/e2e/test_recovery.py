"""Runs whose jobs Slurm ends: preempted, out of time, on a node that fails; and what follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from tests.cluster import SlurmCluster
from tests.e2e.conftest import choice_of, running_stack
from tests.e2e.test_runs import engine_lines, nap, slurm_job, wait_running
from tests.preemption import (
    bring_back,
    preempting_cluster,
    sbatch,
    start_requeued,
    take_down,
)

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(420)]

RUNS_NODE = "c2"
IN_PROCESS: dict[str, Any] = {"execution": {"config": {"in_process": {}}}}


@pytest.fixture(scope="module")
def preempting() -> Iterator[SlurmCluster]:
    """A cluster of its own whose partitions preempt each other."""
    with preempting_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def recovering(preempting: SlurmCluster) -> Iterator[Stack]:
    """A stack whose runs have a node of their own, which may fail without the code server."""
    settings: dict[str, Any] = {
        "scheduler": {"poll_seconds": 1, "commands_per_second": 20},
        "code_servers": {"options": {"nodelist": "c1"}},
        "runs": {"options": {"nodelist": RUNS_NODE}, "grace_seconds": 10},
    }
    with running_stack(choice_of(preempting), relay={"bind": "127.0.0.1"}, **settings) as started:
        yield started


def outrank(cluster: SlurmCluster, seconds: int = 3) -> str:
    """Submit a job of higher priority that wants the whole node of the runs."""
    return sbatch(
        cluster,
        f"sleep {seconds}",
        *("--partition=urgent", f"--nodelist={RUNS_NODE}", "--time=1"),
        *("--cpus-per-task=4", "--mem=1G"),
    )


def tags_of(stack: Stack, run_id: str) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in stack.webserver.run(run_id)["tags"]}


def wait_line(stack: Stack, run_id: str, text: str, *, seconds: float = 60) -> str:
    """Wait until the run's log has a line of the agent with this text."""
    return str(
        wait_for(
            f"the log of run {run_id} does not say {text!r}",
            lambda: next((line for line in engine_lines(stack, run_id) if text in line), None),
            seconds=seconds,
        )
    )


def count(stack: Stack, run_id: str, kind: str) -> int:
    return sum(event["__typename"] == kind for event in stack.webserver.events(run_id))


@pytest.mark.parametrize("executor", ["multiprocess", "in_process"])
def test_preempted_run_goes_on_in_the_same_job(
    recovering: Stack, preempting: SlurmCluster, executor: str
) -> None:
    """Slurm requeues the job, and its second start continues the run to its success.

    Both executors start the step that was interrupted again, within the same run.
    """
    config: dict[str, Any] = {"ops": {"sleep_and_tell": {"config": {"seconds": 12}}}}
    if executor == "in_process":
        config |= IN_PROCESS
    run_id = recovering.webserver.launch(
        "example",
        "sleepy_job",
        config=config,
        tags={"dagster-hpc/partition": "requeued", "dagster-hpc/on-preempt": "requeue"},
    )
    job = wait_running(recovering, run_id)
    outrank(preempting)
    wait_line(recovering, run_id, f"Job {job['job_id']} is PENDING (BeginTime")
    start_requeued(preempting, job["job_id"])
    wait_line(recovering, run_id, f"Slurm has requeued job {job['job_id']}: attempt 2 goes on")
    assert recovering.wait_finished(run_id) == "SUCCESS"
    assert recovering.job_of(run_id=run_id)["job_id"] == job["job_id"]
    assert tags_of(recovering, run_id)["dagster-hpc/attempt"] == "2"
    assert any("resuming" in line for line in engine_lines(recovering, run_id))
    assert count(recovering, run_id, "RunStartEvent") == 1
    assert "Restarts=1" in slurm_job(preempting, job["job_id"])


def test_preempted_run_goes_on_in_another_job(recovering: Stack, preempting: SlurmCluster) -> None:
    """Where preemption cancels, a new job continues the run."""
    run_id = nap(
        recovering,
        12,
        **{"dagster-hpc/partition": "cancelled", "dagster-hpc/on-preempt": "resubmit"},
    )
    first = wait_running(recovering, run_id)
    outrank(preempting)
    wait_line(
        recovering,
        run_id,
        f"Job {first['job_id']} ended: PREEMPTED; attempt 2 of 3 is submitted.",
    )
    assert recovering.wait_finished(run_id) == "SUCCESS"
    second = recovering.job_of(run_id=run_id)
    assert second["job_id"] != first["job_id"]
    assert tags_of(recovering, run_id)["dagster-hpc/attempt"] == "2"
    assert tags_of(recovering, run_id)["dagster-hpc/job-id"] == second["job_id"]


def test_preempted_run_fails_without_a_policy(recovering: Stack, preempting: SlurmCluster) -> None:
    """By default nothing that has run is run again: Dagster's own retries decide."""
    run_id = nap(recovering, 60, **{"dagster-hpc/partition": "requeued"})
    job = wait_running(recovering, run_id)
    outrank(preempting)
    assert recovering.wait_finished(run_id) == "FAILURE"
    wait_line(recovering, run_id, f"Job {job['job_id']} ended: PREEMPTED")


def test_run_goes_on_after_its_node_has_failed(recovering: Stack, preempting: SlurmCluster) -> None:
    """The node comes back, and a new job continues the run."""
    run_id = nap(recovering, 30, **{"dagster-hpc/on-node-fail": "resubmit"})
    first = wait_running(recovering, run_id)
    take_down(preempting, RUNS_NODE)
    try:
        wait_line(recovering, run_id, f"Job {first['job_id']} ended: NODE_FAIL; attempt 2 of 3")
    finally:
        bring_back(preempting, RUNS_NODE)
    assert recovering.wait_finished(run_id) == "SUCCESS"


def test_run_out_of_time_goes_on_with_more(recovering: Stack) -> None:
    """The next attempt asks for a longer time limit, and says so."""
    run_id = nap(
        recovering,
        50,
        **{
            "dagster-hpc/time": "1",
            "dagster-hpc/on-timeout": '{"action": "resubmit", "time_factor": 3}',
        },
    )
    line = wait_line(recovering, run_id, "ended: TIMEOUT; attempt 2 of 3", seconds=120)
    assert line.endswith("is submitted with time 00:03:00 (was 1).")
    assert recovering.wait_finished(run_id) == "SUCCESS"


def test_run_out_of_time_closes_itself_and_says_why(recovering: Stack) -> None:
    """The warning comes in time for the run worker to end in good order."""
    run_id = nap(recovering, 200, **{"dagster-hpc/time": "1"})
    assert recovering.wait_finished(run_id) == "FAILURE"
    wait_line(recovering, run_id, "ended: TIMEOUT: it ran into its time limit; raise")
    assert "RunFailureEvent" in {
        event["__typename"] for event in recovering.webserver.events(run_id)
    }


def test_terminated_run_is_not_continued(recovering: Stack) -> None:
    """A user's end is an end, whatever the policies."""
    run_id = nap(
        recovering,
        120,
        **{"dagster-hpc/on-preempt": "resubmit", "dagster-hpc/on-timeout": "resubmit"},
    )
    wait_running(recovering, run_id)
    recovering.webserver.terminate(run_id)
    assert recovering.wait_finished(run_id, seconds=60) == "CANCELED"
    wait_line(recovering, run_id, "ended: CANCELLED as requested")
    assert not any("attempt" in line for line in engine_lines(recovering, run_id))


def test_wrong_policy_fails_the_run_before_anything_is_submitted(recovering: Stack) -> None:
    """The message names the tag."""
    run_id = nap(recovering, 1, **{"dagster-hpc/on-premept": "requeue"})
    assert recovering.wait_finished(run_id, seconds=60) == "FAILURE"
    assert "tag dagster-hpc/on-premept: there is no such policy" in str(
        recovering.webserver.events(run_id)
    )
