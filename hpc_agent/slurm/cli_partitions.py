"""What decides which partition takes a job, by Slurm's commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from hpc_agent.slurm import sacctmgr, scontrol, scontrol_partition, sinfo
from hpc_agent.slurm.partition_facts import PartitionFacts

Query = Callable[[Sequence[str]], Awaitable[str]]
"""Runs a command and returns what it prints. Raises SchedulerError."""


async def gather(query: Query) -> PartitionFacts:
    """Ask four commands of Slurm at most, and id(1). Raises SchedulerError."""
    # Over SSH it may be another user than here; a login shell may print before.
    user = (await query(["id", "-un"])).strip().rpartition("\n")[2]
    groups = (await query(["id", "-Gnz"])).rpartition("\n")[2]
    settings = scontrol.settings(await query(scontrol.config_arguments()))
    has_accounting = "slurmdbd" in settings.get("AccountingStorageType", "")
    known = await query(sacctmgr.arguments(user)) if has_accounting else ""
    return PartitionFacts(
        user=user,
        groups=frozenset(name for name in groups.split("\0") if name),
        partitions=scontrol_partition.parse(await query(scontrol_partition.arguments())),
        nodes=sinfo.parse_nodes(await query(sinfo.node_arguments())),
        associations=sacctmgr.parse(known, cluster=settings["ClusterName"]),
        enforces_associations="associations" in settings.get("AccountingStorageEnforce", ""),
    )
