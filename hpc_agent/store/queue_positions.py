"""Where waiting jobs are in the queues of their partitions: no part of their history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.slurm.queue_position import Position, waits_for_room
from hpc_agent.store.phases import Phase


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits in Slurm's queue, and the position that it had at the last look."""

    key: str
    job_id: str
    position: Position | None


def waiting(db: Database, workers: Sequence[int], *, since: float) -> list[Waiting]:
    """Return the jobs that Slurm has had in its queue since then or longer, waiting for room.

    Looked at are the workers in these rows: ten thousand at once would take the store too long.
    """
    marks = ", ".join("?" * len(workers))
    found = db.execute(
        "SELECT w.key, j.job_id, j.reason, j.position, j.position_among, j.position_partition "  # noqa: S608
        "FROM workers AS w JOIN jobs AS j ON j.id = w.current_job AND j.worker_key = w.key "
        f"WHERE w.rowid IN ({marks}) AND w.phase = ? AND j.submitted_at <= ? "
        "AND w.placement != 'login'",
        [*workers, Phase.QUEUED.value, since],
    )
    return [
        Waiting(key, job_id, None if number is None else Position(number, among, partition))
        for key, job_id, reason, number, among, partition in found
        if waits_for_room(reason)
    ]


def keep(db: Database, positions: Mapping[str, Position | None]) -> None:
    """Write down where jobs are; None for a worker whose job has no position."""
    for key, position in positions.items():
        values = (
            (position.number, position.among, position.partition) if position else (None, None, "")
        )
        db.execute(
            "UPDATE jobs SET position = ?, position_among = ?, position_partition = ? "
            "WHERE id = (SELECT current_job FROM workers WHERE key = ? AND phase = ?)",
            [*values, key, Phase.QUEUED.value],
        )
