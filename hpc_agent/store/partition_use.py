"""What the agent's jobs have and wait for in each partition, and what was idle there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlite_utils import Database

from hpc_agent.slurm.scheduler import PartitionInfo
from hpc_agent.store import meta
from hpc_agent.store.phases import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionUse:
    """Jobs of ours in one partition, and all its nodes; None is what nobody has looked for.

    ``in_line`` are all users' jobs. ``seen_at`` is when partitions were looked at (epoch).
    """

    partition: str
    running: int = 0
    waiting: int = 0
    in_line: int | None = None
    idle_nodes: int | None = None
    nodes: int | None = None
    idle_cpus: int | None = None
    cpus: int | None = None
    seen_at: float | None = None


def keep_free(db: Database, partitions: Sequence[PartitionInfo], now: float) -> None:
    """Remember how much of each partition is idle."""
    found = {
        each.name: {
            "idle_nodes": each.idle_nodes,
            "nodes": each.nodes,
            "idle_cpus": each.idle_cpus,
            "cpus": each.cpus,
        }
        for each in partitions
    }
    meta.put(db, meta.FREE, json.dumps({"at": now, "partitions": found}))


def in_use(db: Database) -> list[PartitionUse]:
    """Return the partitions that are known, by their names."""
    known = {each.partition: each for each in _of_jobs(db)}
    seen = json.loads(meta.get(db, meta.FREE) or '{"at": null, "partitions": {}}')
    for name, free in seen["partitions"].items():
        use = known.get(name) or PartitionUse(partition=name)
        known[name] = replace(use, **free, seen_at=seen["at"])
    return sorted(known.values(), key=lambda each: each.partition)


def _of_jobs(db: Database) -> list[PartitionUse]:
    running, queued = Phase.RUNNING.value, Phase.QUEUED.value
    rows = db.execute(
        # Of several partitions that a job may start in, the one counts where it is furthest ahead.
        "SELECT CASE WHEN w.phase = ? AND j.position_partition <> '' THEN j.position_partition "
        "ELSE j.partition END AS place, sum(w.phase = ?), sum(w.phase = ?), max(j.position_among) "
        "FROM workers AS w JOIN jobs AS j ON j.id = w.current_job "
        "WHERE w.phase IN (?, ?) AND j.partition <> '' GROUP BY place",
        [queued, running, queued, running, queued],
    )
    return [
        PartitionUse(partition=name, running=running, waiting=waiting, in_line=in_line)
        for name, running, waiting, in_line in rows
    ]
