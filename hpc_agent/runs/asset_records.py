"""What a job of a run has used, at the assets that it has materialized (docs/efficiency.md).

Slurm knows it when the job is over, and a materialization cannot be changed then. So it is told as
observations, which the UI plots beside materializations and which make nothing stale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpc_agent.dagster_plus import assets
from hpc_agent.dagster_plus.assets import Materialized
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.dagster_plus.events import Event, asset_observation
from hpc_agent.jobs.options import TAG_PREFIX
from hpc_agent.runs import efficiency
from hpc_agent.runs.efficiency import Efficiency
from hpc_agent.store.workers import Worker

MOST = 100
"""Assets and partitions of one run that are told of."""


@dataclass(frozen=True, slots=True)
class AssetRecords:
    """Observations to write, and what the run's log says of those that are not, "" for nothing.

    ``assets`` are the keys of what the job has materialized, as the UI writes them.
    """

    events: Sequence[Event] = ()
    words: str = ""
    assets: Sequence[str] = ()


async def asset_records(
    api: AgentApi,
    worker: Worker,
    found: Efficiency,
    *,
    since: float | None,
    wall: Callable[[], float],
) -> AssetRecords:
    """Return what is to be written of a job that is over. Raises ControlPlaneError.

    That of a run has materialized what its run has, that of a step what its step has. ``since``
    leaves out what earlier jobs have materialized. Assets that somebody else observes are left
    alone: whoever reads the last observation is to find his own.
    """
    page = await assets.materializations(
        api, str(worker.run_id), deployment=worker.deployment, limit=MOST + 1
    )
    made = _each_once([each for each in page.found if worker.step in {None, each.step}], since)
    if not made:
        return AssetRecords()
    keys = list(dict.fromkeys(each.key for each in made))
    observed = await assets.observed_assets(api, keys, deployment=worker.deployment)
    theirs = {key for key, labels in observed.items() if not _is_ours(labels)}
    told = [each for each in made if each.key not in theirs][:MOST]
    has_more = page.has_more or len(made) > MOST
    return AssetRecords(
        [_event(worker, found, each, at=wall()) for each in told],
        _words(len(told), len(theirs), has_more=has_more),
        ["/".join(key) for key in keys],
    )


def _each_once(found: Sequence[Materialized], since: float | None) -> list[Materialized]:
    made = {(each.key, each.partition): each for each in found if since is None or each.at >= since}
    return list(made.values())


def _is_ours(labels: Sequence[str]) -> bool:
    return bool(labels) and all(label.startswith(TAG_PREFIX) for label in labels)


def _event(worker: Worker, found: Efficiency, made: Materialized, *, at: float) -> Event:
    work = "all of its run" if worker.step is None else f"step {worker.step}"
    description = (
        f"What Slurm job {worker.job_id} used. The job executed {work}, of which this asset is a "
        "part."
    )
    return asset_observation(
        str(worker.run_id),
        worker.job_name or "",
        made.key,
        made.partition,
        description,
        at=at,
        metadata={
            **efficiency.asset_metadata(found),
            TAG_PREFIX + "job": str(worker.job_id),
        },
    )


def _words(told: int, theirs: int, *, has_more: bool) -> str:
    """Return what is left out; nothing of that when all is told."""
    why = []
    if has_more:
        why.append(f"of a run's assets and partitions, the first {MOST} are noted")
    if theirs:
        why.append(f"{theirs} with observations of their own are left alone")
    if not why:
        return ""
    return f"What the job used is noted at {told} of what the run materialized: {'; '.join(why)}."
