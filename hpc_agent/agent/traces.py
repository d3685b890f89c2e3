"""The agent's spans: the work on a request, and each worker from its intent to the last word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from hpc_agent.dagster_plus import responses
from hpc_agent.dagster_plus.serdes import Packed
from hpc_agent.journal.about import Fields
from hpc_agent.runs.worker_plan import run_key
from hpc_agent.slurm.state import JobState
from hpc_agent.store.inbox import Request
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import HistoryEntry, Worker, WorkerKind
from hpc_agent.traces.span import Attribute, Span, request_key, serving_key, trace_name

_PHASES: Mapping[Phase, str] = {
    Phase.INTENT: "held back",
    Phase.SUBMITTING: "sbatch",
    Phase.QUEUED: "queue",
    Phase.RUNNING: "job",
}
_OVER = "last word"


def request_span(
    request: Request, fields: Fields, answer: Packed | None, began_at: float, ended_at: float
) -> Span:
    """Return the work on a request; ``fields`` are those of its lines in the log."""
    return Span(
        name=f"serve {request.api}",
        trace=trace_name(fields.get("run_id"), request.request_id),
        key=serving_key(request.request_id),
        parent=request_key(request.request_id),
        began_at=began_at,
        ended_at=ended_at,
        attributes=_attributes(fields),
        error="the request has failed" if responses.is_failure(answer) else "",
    )


def worker_spans(
    worker: Worker, history: Sequence[HistoryEntry], *, now: float, ahead: float
) -> Iterator[Span]:
    """Yield a worker's life, and each phase of it, up to ``now``, when the last word was said.

    ``ahead`` is how far the time of day is ahead of the agent's clock, whose times these are.
    """
    key = f"worker {worker.key}"
    trace = trace_name(worker.run_id, worker.key)
    about = _attributes(worker.log_fields)
    yield Span(
        name=worker.kind.value,
        trace=trace,
        key=key,
        parent=_parent_of(worker),
        began_at=worker.created_at + ahead,
        ended_at=now + ahead,
        attributes={**about, **_of_job(worker)},
        error="" if worker.outcome is JobState.COMPLETED else _words_for_end(worker),
    )
    for name, began_at, ended_at in _phases(worker, history, now):
        yield Span(
            name=name,
            trace=trace,
            key=f"{key} {name} {began_at}",
            parent=key,
            began_at=began_at + ahead,
            ended_at=ended_at + ahead,
            attributes=about,
        )


def _phases(
    worker: Worker, history: Sequence[HistoryEntry], now: float
) -> Iterator[tuple[str, float, float]]:
    """Yield each phase that a worker was in: from when, until when."""
    entered = [(Phase(each.phase), each.at) for each in _first_of_each(history)]
    starts = [phase for phase, _ in entered].count(Phase.RUNNING)
    moments = []
    for phase, at in entered:
        # The history says when it was noticed. Of one start and one end more is known.
        if phase is Phase.RUNNING and starts == 1:
            moments.append((_PHASES[phase], worker.started_at or at))
        elif phase.is_final:
            moments.append((_OVER, worker.ended_at or at))
        else:
            moments.append((_PHASES[phase], at))
    for (name, began_at), (_, ended_at) in pairwise([*moments, ("", now)]):
        yield name, began_at, max(began_at, ended_at)


def _first_of_each(history: Iterable[HistoryEntry]) -> Iterator[HistoryEntry]:
    last = ""
    for each in history:
        if each.phase != last:
            yield each
        last = each.phase


def _parent_of(worker: Worker) -> str | None:
    """Return the request that wanted a worker, the run that wanted a step, or the last attempt."""
    if worker.request_id is not None:
        return serving_key(worker.request_id)
    if worker.run_id is not None and worker.kind is WorkerKind.STEP:
        return f"worker {run_key(worker.run_id)}"
    if worker.run_id is not None and worker.attempt > 1:
        return f"worker {run_key(worker.run_id, worker.attempt - 1)}"
    return None


def _words_for_end(worker: Worker) -> str:
    return worker.outcome.value if worker.outcome is not None else worker.phase.value.upper()


def _attributes(fields: Fields) -> dict[str, Attribute | None]:
    return {
        "dagster.run_id": fields.get("run_id"),
        "dagster.deployment": fields.get("deployment"),
        "dagster.location": fields.get("location"),
        "hpc_agent.request_id": fields.get("request_id"),
        "hpc_agent.key": fields.get("key"),
        "slurm.job_id": fields.get("job_id"),
    }


def _of_job(worker: Worker) -> dict[str, Attribute | None]:
    job = worker.job
    return {
        "dagster.job": worker.job_name,
        "hpc_agent.attempt": worker.attempt,
        "slurm.state": worker.state.value,
        "slurm.partition": job.partition if job else None,
        "slurm.nodes": worker.nodes or None,
        "slurm.restart_count": worker.restart_count,
        "process.exit_code": worker.exit_code,
    }
