"""What is known of partitions: from jobs of ours, and from looks at queue and partitions."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database

from hpc_agent.slurm.scheduler import PartitionInfo
from hpc_agent.store.partition_use import PartitionUse, in_use, keep_free
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.workers import a_worker, put


def partition(name: str, *, idle_nodes: int) -> PartitionInfo:
    return PartitionInfo(
        name=name, available=True, is_default=False, nodes=3, cpus=12, max_time_seconds=None,
        idle_nodes=idle_nodes,
    )  # fmt: skip


def add(db: Database, key: str, phase: Phase, **of_job: Any) -> None:
    worker = a_worker(
        key=key,
        kind=WorkerKind.RUN_WORKER,
        phase=phase,
        deployment="prod",
        location="here",
        created_at=1.0,
        job_id=key,
        **of_job,
    )
    put(db, worker)


def test_jobs_and_nodes_are_counted_by_partition(db: Database) -> None:
    """A job that may start in several waits where it is furthest ahead."""
    add(db, "running", Phase.RUNNING, partition="gpu")
    add(db, "over", Phase.ENDED, partition="gpu")
    add(db, "waiting", Phase.QUEUED, partition="batch")
    in_line = {"position": 2, "position_among": 7, "position_partition": "long"}
    add(db, "in-line", Phase.QUEUED, partition="gpu,long", **in_line)
    keep_free(db, [partition("batch", idle_nodes=1), partition("long", idle_nodes=0)], 5.0)
    free: dict[str, Any] = {"nodes": 3, "idle_cpus": None, "cpus": 12, "seen_at": 5.0}
    assert in_use(db) == [
        PartitionUse(partition="batch", waiting=1, idle_nodes=1, **free),
        PartitionUse(partition="gpu", running=1),
        PartitionUse(partition="long", waiting=1, in_line=7, idle_nodes=0, **free),
    ]
