"""Pools as rows: what waits, their allocations, what warms them, and why they came and went."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.errors import UsageError
from hpc_agent.hints import did_you_mean
from hpc_agent.jobs.wording import describe
from hpc_agent.store import pools, workers
from hpc_agent.store.database import read_only
from hpc_agent.store.workers import Worker


def read_pools(config: AgentConfig) -> list[dict[str, Any]]:
    """Return a row for each pool. Raises StoreError when no agent has run."""
    return pool_rows(read_only(config.home), config)


def pool_rows(db: Database, config: AgentConfig) -> list[dict[str, Any]]:
    """Return a row for each pool of agent.yaml."""
    return [_row(db, config, name) for name in sorted(config.pools)]


def read_pool(config: AgentConfig, name: str, *, decisions: int) -> dict[str, Any]:
    """Return all about a pool, the last decisions with it. Raises UsageError without it."""
    if name not in config.pools:
        known = sorted(config.pools)
        raise UsageError(f"there is no pool {name!r} in agent.yaml{did_you_mean(name, known)}")
    db = read_only(config.home)
    return {
        **_row(db, config, name),
        "allocations": [_allocation(db, each) for each in pools.allocations(db, name)],
        "waiting_runs": [_member(each) for each in pools.waiting(db, name)],
        "decisions": [asdict(each) for each in pools.decisions(db, name, decisions)],
    }


def _row(db: Database, config: AgentConfig, name: str) -> dict[str, Any]:
    stop = pools.stopped(db, name)
    return {
        "pool": name,
        "locations": _locations(config, name),
        **asdict(pools.occupancy(db, name)),
        "stopped": None if stop is None else stop.reason,
        "why": _why(db, name, stop),
    }


def _locations(config: AgentConfig, name: str) -> list[str]:
    return [place for place, own in config.locations.items() if own.pool == name]


def _why(db: Database, name: str, stop: pools.Stop | None) -> str:
    if stop is not None:
        return f"stopped: {stop.reason}"
    if allocations := pools.allocations(db, name):
        return describe(allocations[-1])
    last = pools.decisions(db, name, 1)
    return last[0].words if last else "nothing has waited for it"


def _allocation(db: Database, worker: Worker) -> dict[str, Any]:
    return {
        "key": worker.key,
        "job_id": worker.job_id,
        "is_leaving": worker.is_leaving,
        "state": describe(worker),
        "supervisors": [asdict(each) for each in pools.supervisors(db, worker.key)],
        "runs": [_member(each) for each in workers.in_pack(db, worker.key)],
    }


def _member(worker: Worker) -> dict[str, Any]:
    return {
        "key": worker.key,
        "run_id": worker.run_id,
        "step": worker.step,
        "location": worker.location,
        "since": worker.started_at or worker.created_at,
        "state": describe(worker),
    }
