"""What one node's share of an allocation has room for, and what one slot of it has."""

from __future__ import annotations

import os
from typing import Dict, List, Mapping, Optional, Tuple

from ..spec import Slot


def slots_of(slot: Slot, cpus: int, environment: Mapping[str, str]) -> int:
    """Return how many members have room at once: 1 at least."""
    by_cpus = cpus // slot.cpus
    memory = node_memory_mb(cpus, environment)
    if memory is None or slot.memory_mb is None:
        return max(1, by_cpus)
    return max(1, min(by_cpus, memory // slot.memory_mb))


def node_cpus(environment: Mapping[str, str]) -> List[int]:
    """Return this node's CPUs of the allocation: those that we may run on, as many as we got.

    Without task/affinity or cgroups Slurm binds nobody, and all of the node's are listed.
    """
    cpus = sorted(os.sched_getaffinity(0))
    given = environment.get("SLURM_CPUS_ON_NODE", "")
    return cpus[: int(given)] if given.isdigit() and int(given) > 0 else cpus


def is_bound(environment: Mapping[str, str]) -> bool:
    """Whether the CPUs that we may run on are the allocation's alone."""
    given = environment.get("SLURM_CPUS_ON_NODE", "")
    return given.isdigit() and len(os.sched_getaffinity(0)) <= int(given)


def node_memory_mb(cpus: int, environment: Mapping[str, str]) -> Optional[int]:
    """Return what Slurm gave of this node's memory, None where it limits nothing (sbatch(1))."""
    per_node = environment.get("SLURM_MEM_PER_NODE", "")
    if per_node.isdigit() and int(per_node) > 0:
        return int(per_node)
    per_cpu = environment.get("SLURM_MEM_PER_CPU", "")
    return int(per_cpu) * cpus if per_cpu.isdigit() and int(per_cpu) > 0 else None


def shares(cpus: List[int], slot: Slot, slots: int) -> List[Tuple[int, ...]]:
    """Return the CPUs of each slot; none where there are fewer than the slots need."""
    if len(cpus) < slots * slot.cpus:
        return []
    return [tuple(cpus[at * slot.cpus : (at + 1) * slot.cpus]) for at in range(slots)]


def slot_environment(environment: Mapping[str, str], slot: Slot) -> Dict[str, str]:
    """Return the variables that tell a member of its slot, where Slurm told of the allocation.

    The job script has set OMP_NUM_THREADS to the allocation's CPUs, unless somebody else had.
    """
    changed = {}
    per_task = environment.get("SLURM_CPUS_PER_TASK")
    if per_task is not None and environment.get("OMP_NUM_THREADS") == per_task:
        changed["OMP_NUM_THREADS"] = str(slot.cpus)
    if "SLURM_JOB_ID" in environment:
        for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE"):
            changed[name] = str(slot.cpus)
        changed["SLURM_JOB_NUM_NODES"] = "1"
        if slot.memory_mb is not None:
            changed["SLURM_MEM_PER_NODE"] = str(slot.memory_mb)
    return changed
