"""Every job state that one machine can produce, on a real Slurm, as our parsers see it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc_agent.slurm.cli import slurm_on_this_host
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from tests.cluster import SlurmCluster, own_cluster
from tests.preemption import bring_back, preempting_cluster, sbatch, slurm, take_down
from tests.slurm.state_page import PAGE, PRODUCED, REAL, render, rows_of

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

LIMIT_SECONDS = 150.0
# Small jobs, one to a node where that matters.
WHOLE_NODE = ("--cpus-per-task=4", "--mem=1G")
ON_C2 = ("--nodelist=c2",)


class Lab:
    """A cluster, and jobs that were submitted early because their states take their time."""

    def __init__(self, cluster: SlurmCluster) -> None:
        self.cluster = cluster
        on_c1 = (*WHOLE_NODE, "--nodelist=c1", "--time=1")
        self.out_of_time = self.submit("sleep 300", *on_c1)
        self.past_deadline = self.submit("true", "--deadline=now+75seconds", *on_c1)

    def submit(self, script: str, *options: str) -> str:
        return sbatch(self.cluster, script, *options)

    def admin(self, *argv: str) -> str:
        return slurm(self.cluster, "scontrol", *argv)

    def look(self, job_id: str) -> JobRecord:
        """Return a job as the one query of the agent has it."""
        scheduler = slurm_on_this_host(self.cluster.environment, burst=1000)
        records = {record.job_id: record for record in asyncio.run(scheduler.queue()).records}
        return records[job_id]

    def wait(self, job_id: str, what: Callable[[JobRecord], bool]) -> JobRecord:
        """Wait until a job is seen as that, and note the state as one that was produced."""
        deadline = time.monotonic() + LIMIT_SECONDS
        record = self.look(job_id)
        while not what(record):
            assert time.monotonic() < deadline, record
            time.sleep(0.1)
            record = self.look(job_id)
        return record

    def seen(self, job_id: str, state: JobState, reason: str | None = None) -> JobRecord:
        record = self.wait(
            job_id,
            lambda record: record.state is state and (reason is None or reason in record.reason),
        )
        PRODUCED.add(state)
        return record

    def cancel(self, *job_ids: str) -> None:
        slurm(self.cluster, "scancel", *job_ids)
        for job_id in job_ids:
            self.wait(job_id, lambda record: record.state.is_final)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with preempting_cluster() as cluster:
        yield Lab(cluster)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--begin=now+1hour",), "BeginTime"),
        (("--hold",), "JobHeldUser"),
    ],
)
def test_pending_with_its_reason(lab: Lab, options: tuple[str, ...], reason: str) -> None:
    """Why a job waits is said by Slurm."""
    job = lab.submit("true", *options)
    assert lab.seen(job, JobState.PENDING, reason).start_time is None
    lab.cancel(job)


def test_pending_behind_another_job(lab: Lab) -> None:
    """A dependency that is not satisfied, and one that never can be."""
    first = lab.submit("exit 1", "--hold")
    behind = lab.submit("true", f"--dependency=afterok:{first}")
    lab.seen(behind, JobState.PENDING, "Dependency")
    lab.admin("release", first)
    lab.seen(behind, JobState.PENDING, "DependencyNeverSatisfied")
    lab.cancel(behind)


def test_pending_held_by_an_administrator(lab: Lab) -> None:
    """Only an administrator can let it go."""
    job = lab.submit("true", "--begin=now+1hour")
    lab.admin("hold", job)
    lab.seen(job, JobState.PENDING, "JobHeldAdmin")
    lab.cancel(job)


def test_pending_for_resources(lab: Lab) -> None:
    """The scheduler says when it expects the job to start."""
    running = lab.submit("sleep 300", *WHOLE_NODE, *ON_C2)
    lab.seen(running, JobState.RUNNING)
    first = lab.submit("true", *WHOLE_NODE, *ON_C2)
    lab.seen(first, JobState.PENDING, "Resources")
    lab.wait(first, lambda record: record.expected_start is not None)
    lab.cancel(first, running)


def test_suspended_and_stopped(lab: Lab) -> None:
    """Neither is an end."""
    job = lab.submit("sleep 300")
    lab.seen(job, JobState.RUNNING)
    lab.admin("suspend", job)
    lab.seen(job, JobState.SUSPENDED)
    lab.admin("resume", job)
    lab.seen(job, JobState.RUNNING)
    slurm(lab.cluster, "scancel", "--signal=STOP", "--batch", job)
    slurm(lab.cluster, "scancel", "--signal=STOP", job)
    lab.seen(job, JobState.STOPPED)
    slurm(lab.cluster, "scancel", "--signal=CONT", job)
    lab.seen(job, JobState.RUNNING)
    lab.cancel(job)


def test_completing_is_no_end(lab: Lab) -> None:
    """A job that ignores SIGTERM is on its way out until it is killed."""
    job = lab.submit("trap : TERM; while :; do sleep 1; done")
    lab.seen(job, JobState.RUNNING)
    slurm(lab.cluster, "scancel", job)
    lab.seen(job, JobState.COMPLETING)
    lab.seen(job, JobState.CANCELLED)


def test_completed(lab: Lab) -> None:
    """Exit code 0."""
    assert lab.seen(lab.submit("true"), JobState.COMPLETED).exit_code == 0


def test_failed_by_exit_code(lab: Lab) -> None:
    """The script's own."""
    assert lab.seen(lab.submit("exit 3"), JobState.FAILED).exit_code == 3


def test_failed_by_signal(lab: Lab) -> None:
    """The signal is told as such."""
    assert lab.seen(lab.submit("kill -9 $$"), JobState.FAILED).signal == 9


def test_requeued_waits_again(lab: Lab) -> None:
    """An administrator's requeue counts a restart."""
    job = lab.submit("sleep 300", "--requeue")
    lab.seen(job, JobState.RUNNING)
    lab.admin("requeue", job)
    record = lab.wait(job, lambda record: record.restarts == 1 and record.state.is_waiting)
    assert record.state in {JobState.PENDING, JobState.REQUEUED}
    lab.cancel(job)


def test_requeued_and_held(lab: Lab) -> None:
    """It waits until somebody lets it go."""
    job = lab.submit("sleep 300", "--requeue")
    lab.seen(job, JobState.RUNNING)
    lab.admin("requeuehold", job)
    record = lab.wait(job, lambda record: record.state.is_waiting and "held" in record.reason)
    assert record.state is JobState.PENDING
    lab.cancel(job)


def test_special_exit(lab: Lab) -> None:
    """Requeued and held, with a mark."""
    job = lab.submit("sleep 300", "--requeue")
    lab.seen(job, JobState.RUNNING)
    lab.admin("requeuehold", "State=SpecialExit", job)
    lab.seen(job, JobState.SPECIAL_EXIT)
    lab.admin("release", job)
    lab.cancel(job)


def test_preempted(lab: Lab) -> None:
    """Where preemption cancels."""
    job = lab.submit("sleep 300", "--partition=cancelled", *WHOLE_NODE, *ON_C2)
    lab.seen(job, JobState.RUNNING)
    urgent = lab.submit("sleep 1", "--partition=urgent", *WHOLE_NODE, *ON_C2)
    lab.seen(job, JobState.PREEMPTED)
    lab.seen(urgent, JobState.COMPLETED)


def test_preempted_and_requeued_waits_again(lab: Lab) -> None:
    """Where preemption requeues, the job does not end."""
    job = lab.submit("sleep 300", "--requeue", "--partition=requeued", *WHOLE_NODE, *ON_C2)
    lab.seen(job, JobState.RUNNING)
    urgent = lab.submit("sleep 1", "--partition=urgent", *WHOLE_NODE, *ON_C2)
    record = lab.wait(job, lambda record: record.restarts == 1)
    assert not record.state.is_final
    lab.seen(urgent, JobState.COMPLETED)
    lab.cancel(job)


def test_node_fail(lab: Lab) -> None:
    """Slurm ends the jobs of a node that is down."""
    job = lab.submit("sleep 300", "--no-requeue", *ON_C2)
    lab.seen(job, JobState.RUNNING)
    take_down(lab.cluster, "c2")
    try:
        lab.seen(job, JobState.NODE_FAIL)
    finally:
        bring_back(lab.cluster, "c2")


def test_timeout(lab: Lab) -> None:
    """The time limit of a minute."""
    record = lab.seen(lab.out_of_time, JobState.TIMEOUT)
    assert record.time_limit_seconds == 60


def test_deadline(lab: Lab) -> None:
    """A job that can no longer end in time is taken out of the queue."""
    lab.seen(lab.past_deadline, JobState.DEADLINE)


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Lab]:
    """A cluster that prepares its nodes for three seconds, and limits memory."""
    prolog = tmp_path / "prolog"
    prolog.write_text("#!/bin/sh\nsleep 3\n")
    prolog.chmod(0o755)
    with own_cluster(memory_limits=True, conf_lines=[f"PrologSlurmctld={prolog}"]) as cluster:
        yield Lab(cluster)


def test_configuring_and_out_of_memory(strict: Lab) -> None:
    """A job waits for its node first, and ends when its memory does."""
    take = f"{sys.executable} -c 'bytearray(300 << 20)'"
    job = strict.submit(take, "--mem=64M", *ON_C2)
    strict.seen(job, JobState.CONFIGURING)
    record = strict.seen(job, JobState.OUT_OF_MEMORY)
    assert record.exit_code == 0 and record.signal == 125


def test_page_shows_what_was_produced(request: pytest.FixtureRequest) -> None:
    """Written anew when it does not; then it wants to be committed."""
    mine = [item for item in request.session.items if item.path == request.path]
    if len(mine) < REAL or set() == PRODUCED:
        pytest.skip("only some of the states were produced in this run")
    if JobState.OUT_OF_MEMORY not in PRODUCED:
        pytest.skip("there are no control groups of version 1 here, which the page is made with")
    page = render(PRODUCED)
    if not PAGE.exists() or rows_of(PAGE.read_text()) != rows_of(page):
        PAGE.write_text(page)
        pytest.fail(f"{PAGE.name} was out of date and is written anew: commit it")
