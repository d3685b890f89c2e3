"""Plans the allocations of a pool: Slurm jobs that many runs and steps live in."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.config.pools import Pool
from hpc_agent.jobs import options
from hpc_agent.jobs.directory import NodeSpec, Slot
from hpc_agent.jobs.layers import choose_partition, pool_layers, settle
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.options_demand import Demand
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.runs.worker_plan import with_warning
from hpc_agent.slurm.partition_facts import PartitionFacts
from hpc_agent.store import workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers import intents
from hpc_agent.workers.changes import Changes

# How a supervisor may stay for ever: it is the agent that keeps `min` of them.
_NEVER = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the allocations of a pool are to be: ``seconds`` is their time limit, as far as known.

    ``slots`` is how many each should have, until its supervisors say it.
    """

    name: str
    pool: Pool
    seconds: float
    slots: int


def offer_of(config: AgentConfig, name: str) -> Offer:
    """Return what the allocations of a pool are to be. Raises ConfigError."""
    pool, demand = config.pools[name], Demand(_settings(config, name))
    return Offer(
        name=name,
        pool=pool,
        seconds=_seconds(demand),
        slots=max(1, _cpus(demand) // pool.slot.cpus),
    )


def _settings(
    config: AgentConfig, name: str, partitions: PartitionFacts | None = None
) -> Sequence[Setting]:
    deployment = next(iter(config.control_plane.deployments), "")
    settings = settle(config, pool_layers(config, name), deployment=deployment)
    if partitions is not None:
        settings = choose_partition(config, settings, partitions, deployment=deployment)
    return with_warning(settings, config)


def plan_allocation(
    config: AgentConfig, name: str, partitions: PartitionFacts | None = None
) -> JobPlan:
    """Return one more allocation of a pool. Raises ConfigError."""
    pool = config.pools[name]
    spec = NodeSpec(
        key=f"pol-{secrets.token_hex(10)}",
        kind=WorkerKind.POOL,
        argv=[],
        environment={},
        working_directory=None,
        grace_seconds=config.runs.grace_seconds,
        idle_seconds=_NEVER if pool.min else pool.idle_seconds,
        slot=Slot(cpus=pool.slot.cpus, memory_mb=pool.slot.memory_mb),
    )
    return JobPlan(
        spec=spec,
        title=f"Pool {name} of Dagster runs",
        settings=_settings(config, name, partitions),
        environment=config.environment_of_pool(name),
    )


def made_of(config: AgentConfig, name: str) -> str:
    """Return a digest of all that an allocation of a pool is started with. Raises ConfigError.

    Of the archive of its environment counts what tells its versions apart on a node; "" when it
    cannot be looked at, which says nothing of it.
    """
    environment = config.environment_of_pool(name)
    version: list[int] = []
    if environment.packed is not None and not config.has_files_elsewhere:
        try:
            found = Path(environment.packed).stat()
        except OSError:
            return ""
        version = [found.st_mtime_ns, found.st_size, found.st_ino]
    content = [
        [(setting.option, setting.value) for setting in _settings(config, name)],
        config.pools[name].slot.model_dump(mode="json"),
        environment.model_dump(mode="json"),
        version,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_outdated(allocation: Worker, made: str) -> bool:
    """Whether an allocation that could take more was started with something else."""
    return (
        "" not in {allocation.made_of, made}
        and allocation.made_of != made
        and not allocation.is_leaving
        and allocation.terminate_at is None
    )


def intent_of(name: str, plan: JobPlan, made: str, *, now: float) -> Worker:
    """Return the allocation as it begins."""
    return Worker(
        key=plan.spec.key,
        kind=WorkerKind.POOL,
        phase=Phase.INTENT,
        deployment="",
        location=None,
        pool=name,
        made_of=made,
        created_at=now,
        settings=options.to_json(plan.settings),
    )


def let_go(db: Database, changes: Changes, key: str, *, now: float, source: str) -> Worker:
    """Let an allocation take nothing more: it ends with its last member, or before it has begun."""
    if workers.get(db, key).phase is Phase.RUNNING:
        return workers.change(db, key, now=now, source=source, is_leaving=True)
    return changes.within(
        db, key, lambda worker, _: intents.withdraw(worker, now, terminate_at=now), source=source
    )


def _seconds(demand: Demand) -> float:
    try:
        amount = demand.time()
    except ValueError:
        return math.inf
    return math.inf if amount is None else amount.value


def _cpus(demand: Demand) -> int:
    """Return the CPUs; of whole nodes it is not known how many they have."""
    try:
        cpus = demand.cpus().value
    except ValueError:
        return 1
    return int(cpus) if math.isfinite(cpus) else 1
