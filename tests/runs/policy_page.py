"""docs/retry-policies.md: what follows when Slurm has ended a run's job, as the code decides it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from hpc_agent.config import Retries, Retry
from hpc_agent.runs.recovery import Asked, Cause, NextAttempt, decide, may_restart
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.workers import a_worker

PAGE = Path(__file__).parents[2] / "docs" / "retry-policies.md"

_STATES = {
    Cause.PREEMPT: JobState.PREEMPTED,
    Cause.NODE_FAIL: JobState.NODE_FAIL,
    Cause.BOOT_FAIL: JobState.BOOT_FAIL,
    Cause.TIMEOUT: JobState.TIMEOUT,
    Cause.OUT_OF_MEMORY: JobState.OUT_OF_MEMORY,
}
# Whole runs on a real Slurm (tests/e2e/test_recovery.py and test_out_of_memory.py).
SHOWN = {
    (Cause.PREEMPT, "fail"): "test_preempted_run_fails_without_a_policy",
    (Cause.PREEMPT, "requeue"): "test_preempted_run_goes_on_in_the_same_job",
    (Cause.PREEMPT, "resubmit"): "test_preempted_run_goes_on_in_another_job",
    (Cause.NODE_FAIL, "resubmit"): "test_run_goes_on_after_its_node_has_failed",
    (Cause.TIMEOUT, "fail"): "test_run_out_of_time_closes_itself_and_says_why",
    (Cause.TIMEOUT, "resubmit"): "test_run_out_of_time_goes_on_with_more",
    (Cause.OUT_OF_MEMORY, "fail"): "test_run_out_of_memory_fails_without_a_policy",
    (Cause.OUT_OF_MEMORY, "resubmit"): "test_run_out_of_memory_goes_on_with_more",
}
_HEAD = """# When Slurm ends a run's job

The table is written by `tests/runs/test_policy_page.py`: do not edit it.

`runs.retries` in agent.yaml has a policy for each end that Slurm brings about; a run chooses its
own by tags (`dagster-hpc/on-preempt`, `on-node-fail`, `on-boot-fail`, `on-timeout`,
`on-out-of-memory`): a word, or JSON such as `{"action": "resubmit", "mem_factor": 1.5, "max":
"64G", "attempts": 4}`. What a tag leaves out, agent.yaml says.

* `fail`: the run fails, and says how its job ended.
* `requeue`: jobs are submitted with `--requeue`, and Slurm starts the same job again under its
  id, about two minutes later. Where Slurm has ended it instead, `requeue` does what `resubmit`
  does. Without such a policy jobs are submitted with `--no-requeue`. Slurm has one switch for all
  causes: a run that may be requeued for one of them is requeued for the others too.
* `resubmit`: a new job goes on with the run, with more memory or time where that was the cause.
  The last attempt's options are multiplied, up to `max`. The site's own bounds hold for it as for
  any job; an attempt that Slurm refuses fails the run, in Slurm's words.

`on_boot_fail` holds for every node that could not start the job: one that did not boot, and one
whose Prolog fails ([job-states.md](job-states.md#a-node-whose-prolog-fails)). Nothing of the run
has happened then, so by default it is submitted again, and after two such ends the node is
[left out](options.md#nodes-that-fail-jobs).

**The run stays the same run.** An attempt in which nothing of the run has happened yet executes
it; any other goes on with it (`dagster api resume_run`). Steps that a step-delegating executor
has finished are kept. The multiprocess and in-process executors (tried with dagster 1.13) start
the steps of the run again, so what a step has done outside Dagster it may do twice: that is what
`requeue` means on a cluster, and why nothing that has run is run again unless a policy says so.

**What is never retried here:** user code that fails, a run that somebody has terminated, a job
that somebody has cancelled, a job that had started and is lost (it may be running somewhere).
A job that Slurm has lost before it started is submitted again, and that is no attempt. Dagster's
own run retries (`dagster/max_retries`) stay in force: they see the run when our attempts are used
up. Preemption and node failures are no fast failures.

**A run worker that can close its run, does.** One whose step is killed for its memory while the
worker itself lives (multiprocess executor) fails the run itself, and Dagster's retries decide. So
`on_out_of_memory` is for jobs whose run worker was killed too. Before a time limit the run worker
gets SIGTERM `runs.walltime_warning_seconds` early and closes its run; with a policy that goes on
after a timeout it is killed instead, since a run that is closed cannot go on. The same holds for
preemption, and for a node that is set down while its slurmd lives. Slurm ends both by SIGTERM, so
a policy that goes on after one of them leaves the run open after the other too; where that one's
policy is `fail`, the agent fails the run instead of its worker.

Attempts are seen in the run's log and by its tags `dagster-hpc/attempt` and `dagster-hpc/job-id`.
The token of an attempt is refused as soon as there is a later one.

| policy | action | attempts | what follows | shown by |
|---|---|---|---|---|
"""
_ROW = re.compile(r"^\| `on_.*\|$", re.MULTILINE)


def render() -> str:
    """Return the page."""
    rows = [
        _row(cause, action)
        for cause in Cause
        for action in get_args(_model(cause).model_fields["action"].annotation)
    ]
    return _HEAD + "\n".join(rows) + "\n"


def rows_of(page: str) -> list[str]:
    """Return the rows of a page."""
    return _ROW.findall(page)


def _model(cause: Cause) -> type[Retry]:
    return type(getattr(Retries(), cause.value))


def _row(cause: Cause, action: str) -> str:
    policies = Retries.model_validate({cause.value: action})
    is_default = getattr(Retries(), cause.value).action == action
    limit = str(getattr(policies, cause.value).limit) if action != "fail" else ""
    test = SHOWN.get((cause, action))
    cells = [
        f"`{cause.value}`",
        f"`{action}`{' (default)' if is_default else ''}",
        limit,
        _follows(cause, policies),
        f"`{test}`" if test else "constructed",
    ]
    return "| " + " | ".join(cells) + " |"


def _follows(cause: Cause, policies: Retries) -> str:
    job = a_worker(
        key="run-1",
        kind=WorkerKind.RUN_WORKER,
        phase=Phase.ENDED,
        state=_STATES[cause],
        deployment="prod",
        location="here",
        run_id="r",
        job_id="17",
        created_at=0.0,
    )
    decided = decide(job, policies, Asked(options={"mem": "4G", "time": "01:00:00"}))
    if not isinstance(decided, NextAttempt):
        return "the run fails"
    more = [f"{each.option} {each.new} (was {each.old})" for each in decided.changes]
    with_more = f" with {', '.join(more)}" if more else ""
    if policies.lets_slurm_requeue and may_restart(policies, 1) is None:
        return "Slurm starts the job again, else a new job goes on"
    return f"a new job goes on{with_more}"
