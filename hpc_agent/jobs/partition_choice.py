"""Chooses the partition of a job that names none: the cheapest of those that take it.

The order: what the job is billed there (TRESBillingWeights; a partition without has a weight of 1
for each CPU), then the smallest nodes that fit, so that large ones are left for those who need
them. Of partitions that are equal all are named, and Slurm starts the job where it can first;
one alone where the job names no time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hpc_agent.errors import NoPartitionError
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.partition_fit import reasons_against
from hpc_agent.jobs.partition_need import Need, count_of, gres, need_of
from hpc_agent.jobs.partition_room import rooms_in
from hpc_agent.slurm.partition_facts import PartitionFacts, PartitionLimits

SOURCE = "chosen by its limits (agent.yaml runs.choose_partition)"

_WEIGHT = re.compile(r"([A-Za-z/:_0-9.-]+)=([0-9.]+)([KMGTP]?)")
_UNITS = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}


@dataclass(frozen=True, slots=True, order=True)
class Price:
    """What a job costs in a partition, the cheapest first: sizes are of the smallest node."""

    billing: float
    gpus: int
    memory_mb: int
    cpus: int

    def __str__(self) -> str:
        """In words for people."""
        return f"billing {self.billing:g}, nodes of {self.cpus} CPUs and {self.memory_mb} MB"


def with_partition(
    settings: Sequence[Setting], facts: PartitionFacts, *, allowed: Collection[str] | None
) -> tuple[Setting, ...]:
    """Return the options with a partition, if they have none.

    ``allowed`` are the partitions that the site's policy opens, all when it is None. Raises
    NoPartitionError, with each partition and why it does not take the job.
    """
    if any(setting.option == "partition" for setting in settings):
        return tuple(settings)
    try:
        need = need_of(settings)
        against = {each: _against(each, facts, need, allowed) for each in facts.partitions}
        prices = {each: price(each, facts, need) for each, why in against.items() if not why}
    except ValueError as error:
        raise NoPartitionError(f"no partition can be chosen for this job: {error}") from None
    if not prices:
        words = "; ".join(f"{each.name}: {', '.join(why)}" for each, why in against.items())
        raise NoPartitionError(
            f"no partition takes this job: {words}. Ask for less, or name a partition "
            "(dagster-hpc/partition)"
        )
    best = min(prices.values())
    equal = sorted(each.name for each, cost in prices.items() if cost == best)
    # The default time of one partition may be over the limit of another: Slurm refuses that
    # (EnforcePartLimits=ALL, tried on 22.05 and 26.05).
    taken = equal if need.seconds is not None else equal[:1]
    why = [f"{','.join(taken)}: taken ({best})"]
    why += [f"{name}: as good, and the job names no time" for name in equal if name not in taken]
    why += [f"{each.name}: dearer ({cost})" for each, cost in prices.items() if cost > best]
    why += [f"{each.name}: {', '.join(words)}" for each, words in against.items() if words]
    return (*settings, Setting("partition", ",".join(taken), SOURCE, why=tuple(why)))


def price(partition: PartitionLimits, facts: PartitionFacts, need: Need) -> Price:
    """Return what a job costs in a partition that takes it."""
    nodes = [room.node for room in rooms_in(partition, facts.nodes, need)]
    sizes = [(count_of(gres(node.gres), "gpu"), node.memory_mb, node.cpus) for node in nodes]
    return Price(_billing(partition.billing_weights, need), *min(sizes))


def _against(
    partition: PartitionLimits,
    facts: PartitionFacts,
    need: Need,
    allowed: Collection[str] | None,
) -> list[str]:
    if allowed is not None and partition.name not in allowed:
        return ["the site's policy does not open it (policy.partitions)"]
    above = [
        each.name
        for each in facts.partitions
        if partition.is_preemptible and each.priority_tier > partition.priority_tier
    ]
    if above:
        return [f"its jobs give way to those of {', '.join(above)}"]
    return reasons_against(partition, facts, need)


def _billing(weights: str, need: Need) -> float:
    """Return the sum of the weighted TRES: memory as far as it is asked for."""
    if not weights:
        return float(need.cpus)
    amounts = {"cpu": need.cpus, "node": need.least_nodes, "gres/gpu": need.gpus}
    total = 0.0
    for name, weight, unit in _WEIGHT.findall(weights):
        if name.lower() == "mem":
            total += float(weight) * need.memory / _UNITS[unit]
        else:
            total += float(weight) * amounts.get(name.lower(), 0)
    return round(total, 6)
