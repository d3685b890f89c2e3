"""scontrol(1), asked for partitions: one line each, of words without blanks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hpc_agent.slurm.partition_facts import Names, PartitionLimits
from hpc_agent.slurm.printed import unreadable
from hpc_agent.slurm.values import duration_or_none, integer

_FIELD = re.compile(r"(?:^| )(\w+)=(\S*)")
_NEEDED = frozenset({"PartitionName", "State", "MaxTime", "MaxNodes", "AllowGroups"})
_NO_LIMIT = frozenset({"", "ALL", "UNLIMITED", "INFINITE", "(null)"})
_PREEMPTING = frozenset({"REQUEUE", "CANCEL", "SUSPEND", "GANG,SUSPEND"})


def arguments() -> list[str]:
    """Build the query; without ``--all``, since what is hidden is not for everybody."""
    return ["scontrol", "show", "partition", "--oneliner"]


def parse(stdout: str) -> list[PartitionLimits]:
    """Read the partitions, and put lines of others aside. Raises SchedulerUnreadableError."""
    found = []
    for line in stdout.splitlines():
        if line.startswith("PartitionName="):
            fields = dict(_FIELD.findall(line))
            if not fields.keys() >= _NEEDED:
                raise unreadable("scontrol", line)
            found.append(_limits(fields))
    if not found or not stdout.endswith("\n"):
        raise unreadable("scontrol", stdout)
    return found


def names(allowed: str, denied: str = "") -> Names:
    """Return who may: ``ALL`` is everybody, and nothing means that nobody is named."""
    return Names(
        allowed=None if allowed in _NO_LIMIT else frozenset(allowed.split(",")),
        denied=frozenset() if denied in _NO_LIMIT else frozenset(denied.split(",")),
    )


def preempts(mode: str) -> bool:
    """Whether jobs of a partition with this PreemptMode can be made to give way."""
    return mode.upper() in _PREEMPTING


def _limits(fields: Mapping[str, str]) -> PartitionLimits:
    return PartitionLimits(
        name=fields["PartitionName"],
        state=fields["State"],
        max_time_seconds=duration_or_none(fields["MaxTime"]),
        min_nodes=integer(fields.get("MinNodes", "")) or 0,
        max_nodes=integer(fields["MaxNodes"]),
        max_cpus_per_node=integer(fields.get("MaxCPUsPerNode", "")),
        max_memory_per_node=integer(fields.get("MaxMemPerNode", "")),
        accounts=names(fields.get("AllowAccounts", ""), fields.get("DenyAccounts", "")),
        qos=names(fields.get("AllowQos", ""), fields.get("DenyQos", "")),
        groups=names(fields["AllowGroups"]),
        priority_tier=integer(fields.get("PriorityTier", "")) or 0,
        is_preemptible=preempts(fields.get("PreemptMode", "")),
        is_hidden=fields.get("Hidden") == "YES",
        is_for_root=fields.get("RootOnly") == "YES",
        needs_reservation=fields.get("ReqResv") == "YES",
        billing_weights=fields.get("TRESBillingWeights", ""),
    )
