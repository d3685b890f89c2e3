"""How much of a job the nodes of a partition have room for, were they empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_agent.jobs.constraint import allows
from hpc_agent.jobs.partition_need import Need, count_of, gres
from hpc_agent.slurm.partition_facts import PartitionLimits
from hpc_agent.slurm.scheduler import NodeInfo

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Room:
    """A node that the job can use: how many of its tasks, and GPUs of its kind, have room there."""

    node: NodeInfo
    tasks: int
    gpus: int


def rooms_in(partition: PartitionLimits, nodes: Sequence[NodeInfo], need: Need) -> list[Room]:
    """Return the nodes of a partition that the job can use, those with most room first."""
    rooms = [_room(partition, node, need) for node in nodes if partition.name in node.partitions]
    usable = [room for room in rooms if room is not None]
    return sorted(usable, key=lambda room: (room.tasks, room.gpus), reverse=True)


def has_gpus(node: NodeInfo) -> bool:
    """Whether a node has GPUs that Slurm knows of."""
    return count_of(gres(node.gres), "gpu") > 0


def cpus_in(partition: PartitionLimits, node: NodeInfo) -> int:
    """Return the CPUs of a node that jobs of a partition may have."""
    most = partition.max_cpus_per_node
    return node.cpus if most is None else min(node.cpus, most)


def _room(partition: PartitionLimits, node: NodeInfo, need: Need) -> Room | None:
    if (need.hosts is not None and node.name not in need.hosts) or node.name in need.excluded:
        return None
    if not allows(need.constraint, node.features) or need.memory_per_node > node.memory_mb * MIB:
        return None
    there = gres(node.gres)
    if any(count_of(there, name) < count for name, count in need.gres_per_node.items()):
        return None
    cpus = cpus_in(partition, node)
    gpus = _gpus(node, cpus, need)
    tasks = min(_bounds_on_tasks(node, cpus, need))
    if tasks < 1 or gpus < need.gpus_per_node or (need.gpus_of_job and not gpus):
        return None
    return Room(node, tasks, gpus)


def _bounds_on_tasks(node: NodeInfo, cpus: int, need: Need) -> list[int]:
    bounds = [cpus // need.cpus_per_task, need.tasks_per_node or need.tasks]
    memory = need.memory_per_cpu * need.cpus_per_task
    if memory:
        bounds.append(int(node.memory_mb * MIB // memory))
    there = gres(node.gres)
    each = need.gres_per_task.items()
    return bounds + [count_of(there, name) // count for name, count in each if count]


def _gpus(node: NodeInfo, cpus: int, need: Need) -> int:
    """Return how many GPUs of the wanted kinds a node can give, with what each of them brings."""
    there = gres(node.gres)
    found = sum(count_of(there, name) for name in need.gpu_kinds)
    if need.cpus_per_gpu:
        found = min(found, cpus // need.cpus_per_gpu)
    if need.memory_per_gpu:
        found = min(found, int(node.memory_mb * MIB // need.memory_per_gpu))
    return found
