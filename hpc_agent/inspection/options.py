"""Which source set which Slurm option: of a run or step as submitted, of a location as of now."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlite_utils import Database

from hpc_agent.cluster.cluster import open_cluster
from hpc_agent.cluster.partition_book import partition_book
from hpc_agent.config import AgentConfig
from hpc_agent.errors import ConfigError, HpcAgentError, StoreError
from hpc_agent.inspection.names import worker_named
from hpc_agent.jobs import options
from hpc_agent.jobs.layers import choose_partition, run_layers, server_layers, settle
from hpc_agent.runs.pool_choice import Wish, pool_of
from hpc_agent.runs.tags import strange_tags
from hpc_agent.slurm.partition_facts import PartitionFacts
from hpc_agent.steps.launched import asked_step
from hpc_agent.store import launches
from hpc_agent.store.database import read_only
from hpc_agent.store.workers import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The options of one job: rows of option, value, source and what was overridden.

    ``notes`` are about what looks like an option and is none, and about what the agent has chosen.
    """

    title: str
    deployment: str
    settings: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def explain(
    config: AgentConfig,
    name: str,
    deployment: str | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    partitions: PartitionFacts | None = None,
) -> list[Explained]:
    """Return the options of a run or a step (run id, job id, key), else of a code location.

    ``tags`` are those that runs of the location are to have, ``partitions`` what one is chosen from
    for them. Raises HpcAgentError when there is neither, ConfigError when the options are wrong.
    """
    job = _job_of_run(config, name)
    if job is not None:
        if tags:
            raise HpcAgentError(
                f"{name!r} is a run or step that has its own tags: give the name of a code location"
            )
        return [_of_job(config, job)]
    where = deployment or next(iter(config.control_plane.deployments), "prod")
    if name not in config.locations and not _is_served(config, name):
        raise HpcAgentError(
            f"{name!r} is no run and no code location that this agent knows; give a run id, a job "
            "id or a name; `hpc-agent status` and `hpc-agent jobs --all` list them"
        )
    server = server_layers(config, deployment=where, location=name)
    of_server = options.to_rows(settle(config, server, deployment=where))
    of_runs = _of_runs(config, name, tags or {}, partitions, deployment=where)
    return [
        Explained(title=f"code server of {name}", deployment=where, settings=of_server),
        Explained(
            title=f"runs of {name}",
            deployment=where,
            settings=of_runs,
            notes=[
                *strange_tags(tags or {}),
                *_reasons(of_runs),
                *_place(config, name, tags or {}, deployment=where),
            ],
        ),
    ]


def is_run(config: AgentConfig, name: str) -> bool:
    """Whether this is a run or a step that the agent knows, by its id, job id or key."""
    return _job_of_run(config, name) is not None


async def partitions_of(config: AgentConfig) -> PartitionFacts | None:
    """Ask Slurm for what partitions are chosen from; None where none is chosen.

    Raises SchedulerError.
    """
    if not config.runs.choose_partition:
        return None
    async with open_cluster(config) as cluster:
        book = partition_book(config, cluster.scheduler, time.monotonic)
        return await book.facts() if book is not None else None


def _of_job(config: AgentConfig, job: Worker) -> Explained:
    settings = json.loads(job.settings) if job.settings else []
    what = f"run {job.run_id}" if job.step is None else f"step {job.step} of run {job.run_id}"
    return Explained(
        title=f"{what}, attempt {job.attempt}, job {job.job_id or 'not submitted yet'}",
        deployment=job.deployment,
        settings=settings,
        notes=[*_notes(config, job), *_reasons(settings), *_place_of(config, job)],
    )


def _of_runs(
    config: AgentConfig,
    location: str,
    tags: Mapping[str, str],
    partitions: PartitionFacts | None,
    *,
    deployment: str,
) -> list[dict[str, Any]]:
    layers = run_layers(config, deployment=deployment, location=location, tags=tags)
    settings = settle(config, layers, deployment=deployment)
    if partitions is not None:
        settings = choose_partition(config, settings, partitions, deployment=deployment)
    return options.to_rows(settings)


def _place(
    config: AgentConfig, location: str, tags: Mapping[str, str], *, deployment: str
) -> list[str]:
    """Say where runs of a location execute, if it has a pool. Raises ConfigError as a launch does.

    What is in a container's image has no pool; that is only known of a run.
    """
    own = config.locations.get(location)
    if own is None or own.pool is None:
        return []
    layers = run_layers(config, deployment=deployment, location=location, tags=tags)
    pool = pool_of(config, Wish(location=location, tags=tags, layers=layers))
    if pool is None:
        return [f"each gets a job of its own, with these options, and no slot of pool {own.pool}"]
    return [f"each gets {_slot(config, pool)}, unless it executes in a container"]


def _place_of(config: AgentConfig, job: Worker) -> list[str]:
    return [f"its place is {_slot(config, job.pool)}"] if job.pool is not None else []


def _slot(config: AgentConfig, name: str) -> str:
    pool = config.pools.get(name)
    if pool is None:
        return f"a slot of pool {name}, which agent.yaml has no more, and not these options"
    memory = pool.slot.memory_mb
    size = f"{pool.slot.cpus} CPU{'s' if pool.slot.cpus > 1 else ''}" + (
        f", {memory} MB" if memory is not None else ""
    )
    return f"a slot of pool {name} ({size}), and not these options"


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why the agent has chosen a value itself; runs of older agents have no reasons."""
    return [f"{row['option']} {words}" for row in rows for words in row.get("why", ())]


def _notes(config: AgentConfig, job: Worker) -> list[str]:
    db = _database(config)
    if db is None:
        return []
    if job.step is not None:
        return _notes_of_step(db, job)
    launch = launches.find(db, job.run_id or "")
    return strange_tags(launch.tags) if launch else []


def _notes_of_step(db: Database, job: Worker) -> list[str]:
    """What is kept of its tags, until it is over."""
    try:
        step = asked_step(db, job)
    except ConfigError:
        return []  # kept by another version
    return strange_tags({tag: "" for _, own in step.asked.tags for tag in own}) if step else []


def _job_of_run(config: AgentConfig, name: str) -> Worker | None:
    db = _database(config)
    if db is None:
        return None
    worker = worker_named(db, name)
    return worker if worker is not None and worker.kind.is_of_run else None


def _is_served(config: AgentConfig, location: str) -> bool:
    db = _database(config)
    known = "SELECT 1 FROM code_servers WHERE location = ? LIMIT 1"
    return db is not None and db.execute(known, [location]).fetchone() is not None


def _database(config: AgentConfig) -> Database | None:
    """None where no agent has run yet: a location can be explained all the same."""
    try:
        return read_only(config.home)
    except StoreError:
        return None
