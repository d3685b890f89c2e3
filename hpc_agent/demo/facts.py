"""What a run left behind, gathered from the webserver and the agent: the demo's closing table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from hpc_agent.demo.stack import Stack

_VALUE_FIELDS = ("intValue", "floatValue", "text", "mdStr", "url", "path", "jsonString")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """A job and the node it ran on."""

    job_id: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Seconds from the moment the run was enqueued."""

    submitted: float
    job_running: float
    first_event: float
    finished: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Everything the demo shows of one run; times in seconds.

    ``step`` is the job of a step of another run, None where dagster-hpc is not installed.
    """

    scheduler: str
    scheduler_version: str
    scheduler_found: str
    code_server: JobFacts
    run_worker: JobFacts
    step: JobFacts | None = None
    run_id: str
    run_status: str
    queue_wait: float
    assets: Mapping[str, Mapping[str, Any]]
    compute_log_bytes: int
    timeline: Timeline
    ui: str

    @property
    def succeeded(self) -> bool:
        """Whether the run succeeded and its logs and metadata arrived."""
        complete = bool(self.assets) and all(self.assets.values())
        return self.run_status == "SUCCESS" and complete and self.compute_log_bytes > 0


def gather(stack: Stack, run_id: str, *, location: str) -> RunFacts:
    """Read back what there is to know of a finished run."""
    run = stack.webserver.run(run_id)
    events = stack.webserver.events(run_id)
    worker = stack.job_of(run_id=run_id)
    server = stack.job_of(location=location)
    logs = stack.printed(run_id)
    return RunFacts(
        scheduler=stack.cluster.kind,
        scheduler_version=stack.cluster.version,
        scheduler_found=stack.cluster.found,
        code_server=JobFacts(job_id=server["job_id"], node=server["nodes"]),
        run_worker=JobFacts(job_id=worker["job_id"], node=worker["nodes"]),
        run_id=run_id,
        run_status=run["status"],
        queue_wait=round(max(worker["started_at"] - worker["submitted_at"], 0.0), 3),
        assets={
            "/".join(item["assetKey"]["path"]): _metadata(item)
            for item in run["assetMaterializations"]
        },
        compute_log_bytes=sum(
            len(streams[name].encode()) for streams in logs for name in ("stdout", "stderr")
        ),
        timeline=timeline(events, worker),
        ui=f"{stack.webserver.url}/runs/{run_id}",
    )


def timeline(events: list[dict[str, Any]], worker: Mapping[str, Any]) -> Timeline:
    """Return when what happened: from the run's own events and the agent's record of its job."""
    enqueued = _time_of(events, "RunEnqueuedEvent")
    first = min(
        _seconds(event)
        for event in events
        if str(event.get("message") or "").startswith("Started process for run")
    )
    finished = max(
        _seconds(event)
        for event in events
        if event["__typename"] in {"RunSuccessEvent", "RunFailureEvent", "RunCanceledEvent"}
    )
    return Timeline(
        submitted=round(worker["submitted_at"] - enqueued, 3),
        job_running=round(worker["started_at"] - enqueued, 3),
        first_event=round(first - enqueued, 3),
        finished=round(finished - enqueued, 3),
    )


def table(facts: RunFacts) -> Table:
    """Return the closing table."""
    rows = Table(title="What happened", show_header=False, title_justify="left")
    rows.add_column(style="bold")
    rows.add_column(overflow="fold")
    job = "Slurm job" if facts.scheduler == "slurm" else "job"
    rows.add_row("Scheduler", f"{facts.scheduler}, version {facts.scheduler_version}")
    rows.add_row("  found", facts.scheduler_found)
    rows.add_row("Code server", f"{job} {facts.code_server.job_id} on {facts.code_server.node}")
    rows.add_row("Run worker", f"{job} {facts.run_worker.job_id} on {facts.run_worker.node}")
    if facts.step is not None:
        rows.add_row("A step", f"{job} {facts.step.job_id} on {facts.step.node}")
    rows.add_row("Queue wait", f"{facts.queue_wait:.2f} s")
    rows.add_row("Run", f"{facts.run_id}: {facts.run_status}")
    for asset, metadata in facts.assets.items():
        shown = ", ".join(f"{label}={_short(value)}" for label, value in metadata.items())
        rows.add_row(f"  {asset}", shown)
    rows.add_row("Compute logs", f"{facts.compute_log_bytes} bytes")
    times = facts.timeline
    rows.add_row(
        "Since enqueued",
        f"submitted {times.submitted:.2f} s, job running {times.job_running:.2f} s, "
        f"first event {times.first_event:.2f} s, finished {times.finished:.2f} s",
    )
    rows.add_row("UI", facts.ui)
    return rows


def _metadata(materialization: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in materialization["metadataEntries"]:
        schema = entry.get("schema")
        if schema is not None:
            value: Any = [f"{column['name']}: {column['type']}" for column in schema["columns"]]
        else:
            value = next((entry[field] for field in _VALUE_FIELDS if entry.get(field)), None)
        found[entry["label"]] = value
    return found


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"


def _time_of(events: list[dict[str, Any]], kind: str) -> float:
    """Return when the first event of a kind happened; some run coordinators enqueue nothing."""
    times = [_seconds(event) for event in events if event["__typename"] == kind]
    return min(times) if times else _seconds(events[0])


def _seconds(event: Mapping[str, Any]) -> float:
    return float(event["timestamp"]) / 1000
