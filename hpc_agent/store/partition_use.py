"""What the agent's jobs have and wait for in each partition."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.store.phases import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionUse:
    """Jobs of ours in one partition; ``in_line`` are all users', None where nobody has looked."""

    partition: str
    running: int
    waiting: int
    in_line: int | None


def in_use(db: Database) -> list[PartitionUse]:
    """Return the partitions in which a job of ours runs or waits, by their names."""
    running, queued = Phase.RUNNING.value, Phase.QUEUED.value
    rows = db.execute(
        # Of several partitions that a job may start in, the one counts where it is furthest ahead.
        "SELECT CASE WHEN w.phase = ? AND j.position_partition <> '' THEN j.position_partition "
        "ELSE j.partition END AS place, sum(w.phase = ?), sum(w.phase = ?), max(j.position_among) "
        "FROM workers AS w JOIN jobs AS j ON j.id = w.current_job "
        "WHERE w.phase IN (?, ?) AND j.partition <> '' GROUP BY place ORDER BY place",
        [queued, running, queued, running, queued],
    )
    return [
        PartitionUse(partition=name, running=running, waiting=waiting, in_line=in_line)
        for name, running, waiting, in_line in rows
    ]
