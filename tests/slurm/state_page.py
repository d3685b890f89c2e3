"""docs/job-states.md: what each state of a job means, and which of them a real Slurm produced."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from hpc_agent.jobs.wording import describe, describe_end
from hpc_agent.runs.last_word import RunEnd, last_word
from hpc_agent.runs.recovery import cause_of
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers import evidence
from tests.workers import a_worker

PAGE = Path(__file__).parents[2] / "docs" / "job-states.md"
# How many tests make up the page; with fewer of them it is not judged.
REAL = 20
PRODUCED: set[JobState] = set()
"""The states that tests have seen on a real Slurm in this run of pytest."""

_ROW = re.compile(r"^\| `[A-Z_]+` \|.*\|$", re.MULTILINE)
_HEAD = """# The states of a job

Written by `tests/slurm/test_states_real.py`: do not edit. Each state of squeue(1) and sacct(1),
what the agent makes of it, what becomes of a run whose worker has not closed it, and how the
run's log says it. "Real" states were produced on a Slurm of two nodes when this page was written;
the others (federations, burst buffers, node boots) one machine cannot produce on demand,
and `tests/slurm/test_states.py` constructs them.

A state that is not in this table is no end: the agent logs it and goes on looking. For a job that
neither the controller nor accounting knows, time counts only while both answer and can be read.
After `scheduler.lost_after_seconds` one that had not started is submitted again; one that had is
lost: its run is reported to the control plane's monitoring as failed, and starts no other attempt
([why](adr/0010-vanished-jobs.md)). The state of a job ends its run's worker only when it is the job
that holds the claim, or no other one is left ([duplicates](architecture.md#workers-and-jobs)).
Which ends are followed by another attempt, [retry-policies.md](retry-policies.md) says.

| state | the job | the run | in its log | policy | seen |
|---|---|---|---|---|---|
"""
_TAIL = """
## A node whose Prolog fails

slurmd drains the node with the reason "Prolog error" and gives the job back. What is then said of
the job, by Slurm 22.05, 24.11 and 26.05 alike (`tests/recorded/*/*-prolog.txt`):

* With `--no-requeue`, squeue has it as `CANCELLED`, reason `None`, exit code 0:0, with a node and
  an end in the second of its start. sacct says the same, and `CANCELLED by 0`.
* With `--requeue`, squeue has it as `PENDING`, reason `launch failed requeued held` (scontrol:
  `launch_failed_requeued_held`), with one restart more and without a node. sacct has an attempt
  that is `REQUEUED`, then one that is `PENDING`. It waits until somebody releases it.

The agent takes the first for `LAUNCH_FAILED`, which is a node's fault and goes by `on_boot_fail`.
What tells it from somebody's scancel: it is by the user 0, had a node, its script has not
started, and the agent has not asked for it. A job that is cancelled while it runs has 0:15, but 0:0
as well when that is in the second of its start; one that is cancelled while it waits has no node.
Only accounting says who cancelled a job, and where the agent runs as root, its user is 0, too.

A requeue gives a job a new time of submission. Accounting of 22.05 may have a record of a job
before it knows whose it is: named `allocation`, `PENDING`, without comment and directory. While it
is younger than two minutes, no job counts as absent.

## A job that ended before it began

The job of a run or a step that is over without a claim, though nobody asked for its end, and is
`NODE_FAIL` or `COMPLETED`, is `LAUNCH_FAILED` for the agent as well: its node died before it could
start it, or has a job with its id already, since a controller lost its state and counts ids anew.
Nothing of it has been executed: that begins only after the agent has been told of the claim.
"""


def render(produced: set[JobState]) -> str:
    """Return the page."""
    rows = [_row(state, produced) for state in JobState if state is not JobState.UNKNOWN]
    return _HEAD + "\n".join(rows) + "\n" + _TAIL


def rows_of(page: str) -> set[str]:
    """Return the rows of a page."""
    return set(_ROW.findall(page))


def observed(state: JobState) -> Worker:
    """Return a run's job that ran, after Slurm has told this state of it."""
    worker = a_worker(
        key="run-1",
        kind=WorkerKind.RUN_WORKER,
        phase=Phase.RUNNING,
        state=JobState.RUNNING,
        deployment="prod",
        location="here",
        run_id="r",
        job_id="17",
        created_at=0.0,
        nodes="c1",
        started_at=10.0,
        is_claimed=True,
    )
    record = JobRecord(job_id="17", state=state, source="squeue", nodes="c1", exit_code=1)
    assert worker.job is not None
    change = evidence.observe_record(worker, worker.job, record, 100.0)
    job = replace(worker.job, **change.job)
    return replace(worker, **change.worker, phase=change.phase or worker.phase, job=job)


def _row(state: JobState, produced: set[JobState]) -> str:
    job = observed(state)
    cause = cause_of(job)
    words = describe_end(job) if job.phase.is_final else describe(job)
    cells = [
        f"`{state.value}`",
        {Phase.QUEUED: "waits", Phase.RUNNING: "runs", Phase.ENDED: "has ended"}[job.phase],
        _becomes_of_run(job),
        words.replace("|", "/"),
        f"`{cause.value}`" if cause else "",
        "real" if state in produced else "constructed",
    ]
    return "| " + " | ".join(cells) + " |"


def _becomes_of_run(job: Worker) -> str:
    if not job.phase.is_final:
        return "goes on"
    word = last_word(job, is_request_open=False, run_status="STARTED")
    return {RunEnd.FAILED: "fails", RunEnd.CANCELED: "is canceled"}.get(word.run_end, "")
