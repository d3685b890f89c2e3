"""What a run's log is told of its worker, as part of the transaction a function is called in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Protocol

from sqlite_utils import Database

from hpc_agent.dagster_plus import events
from hpc_agent.jobs.wording import describe_end, describe_waiting, last_words
from hpc_agent.store import outbox
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker

_NOT_SUBMITTED = frozenset({Phase.INTENT, Phase.SUBMITTING})

JOB_ID_TAG = "dagster-hpc/job-id"
ATTEMPT_TAG = "dagster-hpc/attempt"
NODE_TAG = "dagster-hpc/node"
OWN_TAGS = frozenset({JOB_ID_TAG, ATTEMPT_TAG, NODE_TAG})
AGENT_ID_TAG = "dagster/agent_id"
AGENT_LABEL_TAG = "dagster/agent_label"


class AboutRun(Protocol):
    """Which run a line is about: a worker, or a launch that is none yet."""

    @property
    def deployment(self) -> str:
        """The deployment that the run lives in."""

    @property
    def run_id(self) -> str | None:
        """The run's id."""

    @property
    def job_name(self) -> str | None:
        """Dagster's name of the job that the run executes."""

    @property
    def step(self) -> str | None:
        """Which of the run's steps, None for the run as a whole."""


def say(db: Database, worker: AboutRun, event: events.Event, *, now: float) -> None:
    """Put an event of a run into the outbox."""
    outbox.add(
        db,
        kind=outbox.EVENT,
        deployment=worker.deployment,
        order_key=f"run:{worker.run_id}",
        idempotency_key=str(uuid.uuid4()),
        payload=json.dumps(event),
        now=now,
    )


def say_line(
    db: Database,
    worker: AboutRun,
    message: str,
    *,
    now: float,
    metadata: dict[str, str | int | float] | None = None,
    error: str | None = None,
) -> None:
    """Put one line of the agent's own into a run's log; of a step's job, with the step's name."""
    if worker.step is not None:
        message = f"Step {worker.step}: {message}"
    event = events.engine_event(
        str(worker.run_id), worker.job_name or "", message, at=now, metadata=metadata, error=error
    )
    say(db, worker, event, now=now)


def submitted(
    db: Database,
    worker: Worker,
    *,
    scheduler: str,
    agent_id: str,
    agent_label: str | None,
    now: float,
) -> None:
    """The scheduler has the worker."""
    tags = {JOB_ID_TAG: worker.job_id, AGENT_ID_TAG: agent_id}
    if agent_label:
        tags[AGENT_LABEL_TAG] = agent_label
    if worker.attempt > 1:
        tags[ATTEMPT_TAG] = str(worker.attempt)
    metadata: dict[str, str | int | float] = {"job": str(worker.job_id), "key": worker.key}
    say_line(
        db,
        worker,
        f"Run worker submitted as {scheduler} job {worker.job_id}."
        if worker.pool is None
        else f"Run worker given to pool {worker.pool}, {scheduler} job {worker.job_id}.",
        now=now,
        metadata=metadata,
    )
    _tag(db, worker, tags, what=f"tags:{worker.job_id}", now=now)


def restarted(db: Database, worker: Worker, *, resumes: bool, now: float) -> None:
    """Slurm has started the job again under its own id."""
    attempt = worker.attempt + worker.restart_count
    what = (
        "goes on with the run" if resumes else "starts the run, of which nothing had happened yet"
    )
    say_line(
        db,
        worker,
        f"Slurm has requeued job {worker.job_id}: attempt {attempt} {what}.",
        now=now,
        metadata={"attempt": attempt, "restarts": worker.restart_count},
    )
    tags = {ATTEMPT_TAG: str(attempt)}
    _tag(db, worker, tags, what=f"restart:{worker.restart_count}", now=now)


def _tag(
    db: Database, worker: Worker, tags: Mapping[str, str | None], *, what: str, now: float
) -> None:
    outbox.add(
        db,
        kind=outbox.RUN_TAGS,
        deployment=worker.deployment,
        order_key=f"run:{worker.run_id}",
        idempotency_key=f"{worker.key}:{what}",
        payload=json.dumps({"run_id": worker.run_id, "tags": tags}),
        now=now,
    )


def changed(db: Database, before: Worker, after: Worker, *, now: float) -> None:
    """Tell what of a change a user wants to know: why it waits, and its start."""
    if after.phase in _NOT_SUBMITTED and after.waits_for not in {before.waits_for, ""}:
        say_line(db, after, f"Run worker waits to be submitted: {after.waits_for}", now=now)
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
        if after.nodes:
            what = f"node:{after.job_id}:{after.restart_count}"
            _tag(db, after, {NODE_TAG: after.nodes}, what=what, now=now)


def waits(db: Database, worker: Worker, *, now: float) -> None:
    """Why the job waits, when it is expected to start, and where in the queue it is."""
    say_line(db, worker, f"Job {worker.job_id} is {describe_waiting(worker)}.", now=now)


def ended(db: Database, worker: Worker, *, now: float) -> None:
    """The job is over."""
    if worker.job_id is None:
        return
    metadata: dict[str, str | int | float] = {"state": worker.state.value}
    if worker.started_at and worker.ended_at:
        metadata["elapsed (s)"] = round(max(worker.ended_at - worker.started_at, 0.0), 1)
    if worker.exit_code is not None:
        metadata["exit code"] = worker.exit_code
    say_line(
        db,
        worker,
        f"Job {worker.job_id} ended: {describe_end(worker)}",
        now=now,
        metadata=metadata,
        error=last_words(worker) or None,
    )


def failed(db: Database, worker: Worker, message: str, *, now: float) -> None:
    """Make the run FAILED; what its job wrote last is shown as the error."""
    event = events.run_failure(
        str(worker.run_id), worker.job_name or "", message, at=now, detail=last_words(worker)
    )
    say(db, worker, event, now=now)


def canceling(db: Database, worker: Worker, *, now: float) -> None:
    """Make the run CANCELING, so that whoever looks at it sees that it is about to end."""
    say(
        db, worker, events.run_canceling(str(worker.run_id), worker.job_name or "", at=now), now=now
    )


def canceled(db: Database, worker: Worker, message: str, *, now: float) -> None:
    """Make the run CANCELED."""
    say(
        db,
        worker,
        events.run_canceled(str(worker.run_id), worker.job_name or "", message, at=now),
        now=now,
    )
