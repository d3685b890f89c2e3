"""What a run's log is told of its job, as part of the transaction a function is called in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping

from sqlite_utils import Database

from hpc_agent.dagster_plus import events
from hpc_agent.jobs.wording import describe_end, describe_waiting
from hpc_agent.runs.recovery import NextAttempt
from hpc_agent.store import outbox
from hpc_agent.store.jobs import Job, Phase

JOB_ID_TAG = "dagster-hpc/job-id"
ATTEMPT_TAG = "dagster-hpc/attempt"
AGENT_ID_TAG = "dagster/agent_id"
AGENT_LABEL_TAG = "dagster/agent_label"


def say(db: Database, job: Job, event: events.Event, *, now: float) -> None:
    """Put an event of a run into the outbox."""
    outbox.add(
        db,
        kind=outbox.EVENT,
        deployment=job.deployment,
        order_key=f"run:{job.run_id}",
        idempotency_key=str(uuid.uuid4()),
        payload=json.dumps(event),
        now=now,
    )


def say_line(
    db: Database,
    job: Job,
    message: str,
    *,
    now: float,
    metadata: dict[str, str | int | float] | None = None,
    error: str | None = None,
) -> None:
    """Put one line of the agent's own into a run's log."""
    event = events.engine_event(
        str(job.run_id), job.job_name or "", message, at=now, metadata=metadata, error=error
    )
    say(db, job, event, now=now)


def submitted(
    db: Database, job: Job, *, scheduler: str, agent_id: str, agent_label: str | None, now: float
) -> None:
    """The scheduler has the job."""
    tags = {JOB_ID_TAG: job.job_id, AGENT_ID_TAG: agent_id}
    if agent_label:
        tags[AGENT_LABEL_TAG] = agent_label
    if job.attempt > 1:
        tags[ATTEMPT_TAG] = str(job.attempt)
    metadata: dict[str, str | int | float] = {"job": str(job.job_id), "key": job.key}
    say_line(
        db,
        job,
        f"Run worker submitted as {scheduler} job {job.job_id}.",
        now=now,
        metadata=metadata,
    )
    _tag(db, job, tags, what=f"tags:{job.job_id}", now=now)


def next_attempt(db: Database, ended: Job, decision: NextAttempt, *, now: float) -> None:
    """Another job goes on with the run."""
    more = ", ".join(f"{each.option} {each.new} (was {each.old})" for each in decision.changes)
    say_line(
        db,
        ended,
        f"Job {ended.job_id} ended: {ended.state.value}; attempt {decision.number} of "
        f"{decision.limit} is submitted{' with ' + more if more else ''}.",
        now=now,
        metadata={"attempt": decision.number, "of": decision.limit, **decision.overrides},
    )


def restarted(db: Database, job: Job, *, resumes: bool, now: float) -> None:
    """Slurm has started the job again under its own id."""
    attempt = job.attempt + job.restart_count
    what = (
        "goes on with the run" if resumes else "starts the run, of which nothing had happened yet"
    )
    say_line(
        db,
        job,
        f"Slurm has requeued job {job.job_id}: attempt {attempt} {what}.",
        now=now,
        metadata={"attempt": attempt, "restarts": job.restart_count},
    )
    tags = {ATTEMPT_TAG: str(attempt)}
    _tag(db, job, tags, what=f"restart:{job.restart_count}", now=now)


def _tag(db: Database, job: Job, tags: Mapping[str, str | None], *, what: str, now: float) -> None:
    outbox.add(
        db,
        kind=outbox.RUN_TAGS,
        deployment=job.deployment,
        order_key=f"run:{job.run_id}",
        idempotency_key=f"{job.key}:{what}",
        payload=json.dumps({"run_id": job.run_id, "tags": tags}),
        now=now,
    )


def changed(db: Database, before: Job, after: Job, *, now: float) -> None:
    """Tell what of a change a user wants to know: why it waits, and its start."""
    if after.phase is Phase.INTENT and after.reason not in {before.reason, ""}:
        say_line(db, after, f"Run worker waits to be submitted: {after.reason}", now=now)
    elif after.phase is Phase.QUEUED and (
        before.phase is Phase.RUNNING or after.reason not in {before.reason, "", "None"}
    ):
        waits(db, after, now=now)
    elif after.phase is Phase.RUNNING and before.phase is not Phase.RUNNING:
        waited = (after.started_at or now) - (after.submitted_at or now)
        say_line(
            db,
            after,
            f"Job {after.job_id} runs on {after.nodes or 'its node'}.",
            now=now,
            metadata={"node": after.nodes, "queue wait (s)": round(max(waited, 0.0), 3)},
        )


def waits(db: Database, job: Job, *, now: float) -> None:
    """Why the job waits, when it is expected to start, and where in the queue it is."""
    say_line(db, job, f"Job {job.job_id} is {describe_waiting(job)}.", now=now)


def ended(db: Database, job: Job, *, now: float) -> None:
    """The job is over."""
    if job.job_id is None:
        return
    metadata: dict[str, str | int | float] = {"state": job.state.value}
    if job.started_at and job.ended_at:
        metadata["elapsed (s)"] = round(max(job.ended_at - job.started_at, 0.0), 1)
    if job.exit_code is not None:
        metadata["exit code"] = job.exit_code
    say_line(db, job, f"Job {job.job_id} ended: {describe_end(job)}", now=now, metadata=metadata)


def failed(db: Database, job: Job, message: str, *, now: float) -> None:
    """Make the run FAILED."""
    say(db, job, events.run_failure(str(job.run_id), job.job_name or "", message, at=now), now=now)


def canceling(db: Database, job: Job, *, now: float) -> None:
    """Make the run CANCELING, so that whoever looks at it sees that it is about to end."""
    say(db, job, events.run_canceling(str(job.run_id), job.job_name or "", at=now), now=now)


def canceled(db: Database, job: Job, message: str, *, now: float) -> None:
    """Make the run CANCELED."""
    say(db, job, events.run_canceled(str(job.run_id), job.job_name or "", message, at=now), now=now)
