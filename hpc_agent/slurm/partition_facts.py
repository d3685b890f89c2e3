"""What decides which partition takes a job: limits, nodes, and what a user's accounts may use.

Names and meanings: slurm.conf(5), PARTITION CONFIGURATION; sacctmgr(1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hpc_agent.slurm.scheduler import NodeInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Who may use a partition: those in ``allowed``, everybody when it is None, less ``denied``."""

    allowed: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        """Whether one may."""
        return name not in self.denied and (self.allowed is None or name in self.allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLimits:
    """A partition with its limits; None is no limit, times are in seconds, memory in MiB.

    ``billing_weights`` is TRESBillingWeights as it was written.
    """

    name: str
    state: str
    max_time_seconds: int | None = None
    min_nodes: int = 0
    max_nodes: int | None = None
    max_cpus_per_node: int | None = None
    max_memory_per_node: int | None = None
    accounts: Names = Names()
    qos: Names = Names()
    groups: Names = Names()
    priority_tier: int = 1
    is_preemptible: bool = False
    is_hidden: bool = False
    is_for_root: bool = False
    needs_reservation: bool = False
    billing_weights: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """What a user may do in the name of an account; ``partition`` "" is any."""

    account: str
    partition: str = ""
    qos: tuple[str, ...] = ()
    default_qos: str = ""
    is_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFacts:
    """All of it at one moment.

    ``groups`` is None where nobody can look them up. ``associations`` are empty without accounting;
    unless Slurm enforces them, jobs may use what they do not have.
    """

    user: str
    partitions: Sequence[PartitionLimits]
    nodes: Sequence[NodeInfo]
    groups: frozenset[str] | None = None
    associations: Sequence[Association] = ()
    enforces_associations: bool = True


@runtime_checkable
class KnowsPartitions(Protocol):
    """A scheduler that tells what a partition takes."""

    async def partition_facts(self) -> PartitionFacts:
        """Return partitions, nodes and associations, by a few queries. Raises SchedulerError."""
