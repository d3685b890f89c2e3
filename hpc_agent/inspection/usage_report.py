"""What runs have waited for, used and failed of, over some time: figures for a report."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hpc_agent.config import AgentConfig
from hpc_agent.runs.efficiency import Efficiency
from hpc_agent.slurm.state import JobState
from hpc_agent.store import job_usage, selection
from hpc_agent.store.database import read_only
from hpc_agent.store.phases import Phase
from hpc_agent.store.selection import Selection
from hpc_agent.store.workers import Worker, WorkerKind

_MOST_ROWS = 100_000
_NOBODYS = "(none)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Some jobs together: seconds, hours, and shares from 0 to 1; None where nothing is known.

    ``failed`` counts those that did not complete, but for those that were cancelled.
    """

    name: str
    jobs: int
    failed: int
    wait_median: float | None
    wait_p90: float | None
    node_hours: float | None
    billing_hours: float | None
    cpu_efficiency: float | None
    memory_efficiency: float | None
    gpu_utilization: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """The jobs of runs that ended since a time of day (seconds since the epoch).

    A job that has materialized several assets is counted for each of them: their sum may be more
    than the total. ``failures`` are counted by how a job ended.
    """

    since: float
    until: float
    total: Summary
    by_day: Sequence[Summary]
    by_location: Sequence[Summary]
    by_job: Sequence[Summary]
    by_asset: Sequence[Summary]
    failures: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Ended:
    worker: Worker
    used: Efficiency | None
    assets: Sequence[str]


def read_usage(config: AgentConfig, *, since: float, until: float) -> UsageReport:
    """Return what runs and their steps have used whose jobs ended in between. Raises StoreError."""
    db = read_only(config.home)
    usage = job_usage.ended_since(db, since)
    asked = Selection(
        kinds=[WorkerKind.RUN_WORKER, WorkerKind.STEP],
        with_concluded=True,
        order="ended",
        ascending=True,
        limit=_MOST_ROWS,
        ended_since=since,
    )
    ended = [
        _Ended(
            worker,
            Efficiency(**usage[worker.key][0]) if worker.key in usage else None,
            usage[worker.key][1] if worker.key in usage else (),
        )
        for worker in selection.find(db, asked)
        if (worker.ended_at or 0.0) <= until
    ]
    return UsageReport(
        since=since,
        until=until,
        total=_summary("total", ended),
        by_day=_grouped(ended, lambda each: [_day(each.worker)], by_size=False),
        by_location=_grouped(ended, lambda each: [each.worker.location or _NOBODYS]),
        by_job=_grouped(ended, lambda each: [each.worker.job_name or _NOBODYS]),
        by_asset=_grouped(ended, lambda each: each.assets),
        failures=dict(Counter(_end(each.worker) for each in ended if _has_failed(each.worker))),
    )


def _grouped(
    ended: Iterable[_Ended], names_of: Callable[[_Ended], Sequence[str]], *, by_size: bool = True
) -> list[Summary]:
    groups: defaultdict[str, list[_Ended]] = defaultdict(list)
    for each in ended:
        for name in names_of(each):
            groups[name].append(each)
    found = [_summary(name, group) for name, group in groups.items()]
    if by_size:
        found.sort(key=lambda each: (-(each.node_hours or 0.0), each.name))
    return found


def _summary(name: str, group: Sequence[_Ended]) -> Summary:
    used = [each.used for each in group if each.used is not None]
    waits = sorted(each.queue_wait for each in used)
    return Summary(
        name=name,
        jobs=len(group),
        failed=sum(_has_failed(each.worker) for each in group),
        wait_median=statistics.median(waits) if waits else None,
        wait_p90=waits[min(int(len(waits) * 0.9), len(waits) - 1)] if waits else None,
        node_hours=_sum(each.node_hours for each in used),
        billing_hours=_sum(each.billing_hours for each in used),
        cpu_efficiency=_weighted(used, lambda each: each.cpu_share),
        memory_efficiency=_weighted(used, lambda each: each.memory_share),
        gpu_utilization=_weighted(used, lambda each: each.gpu_share),
    )


def _sum(amounts: Iterable[float | None]) -> float | None:
    """Absent is not zero: None where no amount is known."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _weighted(
    used: Sequence[Efficiency], share: Callable[[Efficiency], float | None]
) -> float | None:
    """An hour of a job counts more than a minute of another."""
    known = [(found, each.elapsed) for each in used if (found := share(each)) is not None]
    length = sum(elapsed for _, elapsed in known)
    return sum(found * elapsed for found, elapsed in known) / length if length else None


def _has_failed(worker: Worker) -> bool:
    return worker.phase is not Phase.ENDED or worker.state not in {
        JobState.COMPLETED,
        JobState.CANCELLED,
    }


def _end(worker: Worker) -> str:
    return worker.state.value if worker.phase is Phase.ENDED else worker.phase.value.upper()


def _day(worker: Worker) -> str:
    return f"{datetime.fromtimestamp(worker.ended_at or 0.0, UTC):%Y-%m-%d}"
