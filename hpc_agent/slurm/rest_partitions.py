"""Partitions and associations in slurmrestd's JSON: side by side in 22.05, later in groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc_agent.slurm.partition_facts import Association, Names, PartitionLimits
from hpc_agent.slurm.rest_values import number, small_number, text, words
from hpc_agent.slurm.scontrol_partition import names, preempts

Json = Mapping[str, Any]


def limits_of_22_05(content: Json) -> PartitionLimits:
    """Read a partition whose fields are side by side; -1 and 0 are no limits."""
    minutes = _limit(content.get("maximum_time_limit", content.get("max_time_limit")))
    flags = {flag.lower() for flag in words(content.get("flags"))}
    return PartitionLimits(
        name=text(content.get("name")),
        state=text(content.get("state")).upper(),
        max_time_seconds=minutes * 60 if minutes is not None else None,
        min_nodes=number(content.get("min nodes per job")) or 0,
        max_nodes=_limit(content.get("maximum_nodes_per_job")),
        max_cpus_per_node=_limit(content.get("maximum_cpus_per_node")),
        max_memory_per_node=_limit(content.get("maximum_memory_per_node")),
        accounts=_names(content.get("allowed_accounts"), content.get("denied_accounts")),
        qos=_names(content.get("allowed_qos"), content.get("denied_qos")),
        groups=_names(content.get("allowed_groups")),
        priority_tier=small_number(content.get("priority_tier")) or 0,
        is_preemptible=any(preempts(mode) for mode in words(content.get("preemption_mode"))),
        is_hidden="hidden" in flags,
        is_for_root="root_only" in flags,
        needs_reservation="reservation_required" in flags,
        billing_weights=text(content.get("billing_weights")),
    )


def limits_of_data_parser(content: Json) -> PartitionLimits:
    """Read a partition whose fields are in groups; its flags are there since v0.0.45."""
    most, flags = _group(content, "maximums"), set(words(content.get("flags")))
    minutes = number(most.get("time"))
    return PartitionLimits(
        name=text(content.get("name")),
        state="+".join(sorted(words(_group(content, "partition").get("state")))),
        max_time_seconds=minutes * 60 if minutes is not None else None,
        min_nodes=number(_group(content, "minimums").get("nodes")) or 0,
        max_nodes=_limit(most.get("nodes")),
        max_cpus_per_node=_limit(most.get("cpus_per_node")),
        max_memory_per_node=_limit(most.get("partition_memory_per_node")),
        accounts=_allowed_in(content, "accounts"),
        qos=_allowed_in(content, "qos"),
        groups=_allowed_in(content, "groups"),
        priority_tier=small_number(_group(content, "priority").get("tier")) or 0,
        is_preemptible=any(preempts(mode) for mode in words(content.get("preempt_mode"))),
        is_hidden="HIDDEN" in flags,
        is_for_root="ROOT_ONLY" in flags,
        needs_reservation="REQ_RESV" in flags,
        billing_weights=text(_group(content, "tres").get("billing_weights")),
    )


def association(content: Json) -> Association:
    """Read what one user may do in the name of one account."""
    return Association(
        account=text(content.get("account")),
        partition=text(content.get("partition")),
        qos=tuple(words(content.get("qos"))),
        default_qos=text(_group(content, "default").get("qos")),
        is_default=bool(content.get("is_default")),
    )


def _group(content: Json, name: str) -> Json:
    found = content.get(name)
    return found if isinstance(found, Mapping) else {}


def _allowed_in(content: Json, name: str) -> Names:
    group = _group(content, name)
    return _names(group.get("allowed"), group.get("deny"))


def _names(allowed: Any, denied: Any = None) -> Names:
    return names(text(allowed), text(denied))


def _limit(value: Any) -> int | None:
    found = number(value)
    return found if found is not None and found > 0 else None
