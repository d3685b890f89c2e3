"""Why a partition does not take a job: its limits, who may use it, and what its nodes have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from hpc_agent.jobs.constraint import allows
from hpc_agent.jobs.partition_need import Need, count_of, gres
from hpc_agent.jobs.partition_room import MIB, cpus_in, has_gpus, rooms_in
from hpc_agent.slurm.partition_facts import Association, PartitionFacts, PartitionLimits
from hpc_agent.slurm.scheduler import NodeInfo

_GIB = 1 << 30
_DEFAULT_QOS = "normal"


def reasons_against(partition: PartitionLimits, facts: PartitionFacts, need: Need) -> list[str]:
    """Return all that keeps a job out of a partition; nothing when it takes the job."""
    nodes = [node for node in facts.nodes if partition.name in node.partitions]
    found = [*_closed(partition, need), *_not_for(partition, facts, need)]
    found += _over_limits(partition, need)
    if not need.gpus and any(has_gpus(node) for node in nodes):
        found.append("its nodes have GPUs, and the job asks for none")
    return found or list(_lacking(partition, nodes, need))


def _closed(partition: PartitionLimits, need: Need) -> Iterator[str]:
    if partition.state != "UP":
        yield f"it is {partition.state}"
    if partition.is_hidden:
        yield "it is hidden"
    if partition.needs_reservation and not need.reservation:
        yield "it takes jobs with a reservation alone"


def _not_for(partition: PartitionLimits, facts: PartitionFacts, need: Need) -> Iterator[str]:
    is_root = facts.user == "root"
    if partition.is_for_root and not is_root:
        yield "it is for root alone"
    own = [each for each in facts.associations if each.account == _account(facts, need)]
    account, qos = _account(facts, need), need.qos or _default_qos(own)
    if not partition.accounts.has(account):
        yield f"{f'account {account}' if account else 'a job without account'} may not use it"
    elif own and facts.enforces_associations and not _is_associated(partition, own):
        yield f"{facts.user} may not use it for account {account}"
    if not partition.qos.has(qos):
        yield f"QOS {qos} may not use it"
    allowed = partition.groups.allowed
    if allowed is not None and not is_root:
        if facts.groups is None:
            yield f"it is for groups ({', '.join(sorted(allowed))}), which slurmrestd does not tell"
        elif not allowed & facts.groups:
            yield f"{facts.user} is in none of its groups ({', '.join(sorted(allowed))})"


def _account(facts: PartitionFacts, need: Need) -> str:
    return need.account or next((a.account for a in facts.associations if a.is_default), "")


def _default_qos(own: Sequence[Association]) -> str:
    """As slurmctld takes one for a job that names none: the default, the only one, ``normal``."""
    for each in own:
        return each.default_qos or (each.qos[0] if len(each.qos) == 1 else _DEFAULT_QOS)
    return _DEFAULT_QOS


def _is_associated(partition: PartitionLimits, own: Sequence[Association]) -> bool:
    return any(each.partition in {"", partition.name} for each in own)


def _over_limits(partition: PartitionLimits, need: Need) -> Iterator[str]:
    limit, seconds = partition.max_time_seconds, need.seconds
    if limit is not None and seconds is not None and seconds > limit:
        asked = "no limit" if math.isinf(seconds) else f"{seconds / 60:g}"
        yield f"MaxTime is {limit / 60:g} minutes, the job asks for {asked}"
    if partition.max_nodes is not None and need.least_nodes > partition.max_nodes:
        yield f"MaxNodes is {partition.max_nodes}, the job asks for {need.least_nodes}"
    if need.most_nodes < partition.min_nodes:
        yield f"MinNodes is {partition.min_nodes}, the job asks for {need.most_nodes}"
    most = partition.max_memory_per_node
    if most is not None and need.memory_per_node > most * MIB:
        asked = _gigabytes(need.memory_per_node)
        yield f"MaxMemPerNode is {_gigabytes(most * MIB)}, the job asks for {asked}"


def _lacking(partition: PartitionLimits, nodes: Sequence[NodeInfo], need: Need) -> Iterator[str]:
    """What its nodes do not have, one by one and then together."""
    rooms = rooms_in(partition, nodes, need)
    if not rooms:
        yield from _no_room(partition, nodes, need)
        return
    most = min(need.most_nodes, partition.max_nodes or need.most_nodes)
    used = rooms[:most]
    tasks, gpus = sum(room.tasks for room in used), sum(room.gpus for room in used)
    if len(rooms) < need.least_nodes:
        yield f"the job can use {len(rooms)} of its nodes and asks for {need.least_nodes}"
    elif tasks < need.tasks:
        yield f"room for {tasks} tasks on {len(used)} of its nodes, the job asks for {need.tasks}"
    elif gpus < need.gpus_of_job:
        yield (
            f"{gpus} GPUs that the job can use on {len(used)} of its nodes, the job asks for "
            f"{need.gpus_of_job}"
        )


def _no_room(partition: PartitionLimits, nodes: Sequence[NodeInfo], need: Need) -> Iterator[str]:
    if not nodes:
        yield "it has no nodes"
        return
    most_cpus = max(cpus_in(partition, node) for node in nodes)
    most_memory = max(node.memory_mb for node in nodes) * MIB
    lacks = []
    if most_cpus < need.cpus_per_task:
        lacks.append(f"{need.cpus_per_task} CPUs (at most {most_cpus})")
    if need.memory_per_node > most_memory:
        asked = _gigabytes(need.memory_per_node)
        lacks.append(f"{asked} of memory (at most {_gigabytes(most_memory)})")
    for name, count in {**need.gres_of_job, **need.gres_per_task, **need.gres_per_node}.items():
        wanted = 1 if name in need.gres_of_job else count
        if all(count_of(gres(node.gres), name) < wanted for node in nodes):
            lacks.append(f"{name}:{count}")
    if not any(allows(need.constraint, node.features) for node in nodes):
        lacks.append(f"the features {need.constraint}")
    if need.hosts is not None and not any(node.name in need.hosts for node in nodes):
        lacks.append("a name of those that are asked for")
    yield f"none of its nodes has {', '.join(lacks) or 'all of what is asked for at once'}"


def _gigabytes(size: float) -> str:
    return f"{round(size / _GIB, 1):g}G"
