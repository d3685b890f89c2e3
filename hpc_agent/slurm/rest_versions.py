"""The versions of slurmrestd's API that are supported, and all in which they differ.

Slurm 22.05 has v0.0.36 to v0.0.38 and sends plain values; 23.11 and later have v0.0.40 and up, made
by data_parser plugins. v0.0.39 is left out: each Slurm that has it has another one of these, too.
Source: the OpenAPI documents of slurmrestd 22.05.8, 24.11.5 and 26.05.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hpc_agent.slurm.partition_facts import PartitionLimits
from hpc_agent.slurm.rest_options import (
    OF_22_05,
    OF_DATA_PARSER,
    Table,
    work_out,
    work_out_22_05,
)
from hpc_agent.slurm.rest_partitions import limits_of_22_05, limits_of_data_parser
from hpc_agent.slurm.rest_values import number, small_number, text, words
from hpc_agent.slurm.scheduler import NodeInfo, PartitionInfo

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How some versions of the API say things.

    ``signals_batch``: whether the batch process alone can be signalled. ``configuration``: the call
    that returns slurm.conf, if there is one. ``environment`` makes the form that the variables of
    a job have.
    """

    options: Table
    work_out: Callable[[Mapping[str, str]], Mapping[str, Any]]
    environment: Callable[[Mapping[str, str]], Any]
    partition: Callable[[Json], PartitionInfo]
    limits: Callable[[Json], PartitionLimits]
    node: Callable[[Json], NodeInfo]
    signals_batch: bool
    history: Mapping[str, str]
    configuration: str | None = None


def partition_of_22_05(content: Json) -> PartitionInfo:
    """Read a partition whose fields are side by side."""
    minutes = number(content.get("maximum_time_limit", content.get("max_time_limit")))
    return PartitionInfo(
        name=text(content.get("name")),
        available=text(content.get("state")).upper() == "UP",
        is_default="default" in {flag.lower() for flag in words(content.get("flags"))},
        nodes=number(content.get("total_nodes")) or 0,
        cpus=number(content.get("total_cpus")) or 0,
        max_time_seconds=minutes * 60 if minutes is not None else None,
    )


def partition_of_data_parser(content: Json) -> PartitionInfo:
    """Read a partition whose fields are in groups. Which one is the default: since v0.0.45."""
    minutes = number((content.get("maximums") or {}).get("time"))
    states = {state.upper() for state in words((content.get("partition") or {}).get("state"))}
    return PartitionInfo(
        name=text(content.get("name")),
        available="UP" in states,
        is_default="DEFAULT" in words(content.get("flags")),
        nodes=number((content.get("nodes") or {}).get("total")) or 0,
        cpus=number((content.get("cpus") or {}).get("total")) or 0,
        max_time_seconds=minutes * 60 if minutes is not None else None,
    )


def node(content: Json) -> NodeInfo:
    """Read a node; its states in lower case with ``+`` between them, as sinfo writes them."""
    states = [*words(content.get("state")), *words(content.get("state_flags"))]
    return NodeInfo(
        name=text(content.get("name")),
        state="+".join(state.lower() for state in states),
        cpus=small_number(content.get("cpus")) or 0,
        memory_mb=number(content.get("real_memory")) or 0,
        partitions=tuple(words(content.get("partitions"))),
        gres=text(content.get("gres")),
        features=tuple(words(content.get("features"))),
    )


def is_up(ping: Json) -> bool:
    """Whether a controller answered: ``responding`` since v0.0.42, else a word."""
    if isinstance(ping.get("responding"), bool):
        return bool(ping["responding"])
    return text(ping.get("pinged", ping.get("ping"))).upper() == "UP"


_OF_22_05 = Dialect(
    options=OF_22_05,
    work_out=work_out_22_05,
    environment=dict,
    partition=partition_of_22_05,
    limits=limits_of_22_05,
    node=node,
    signals_batch=False,
    history={},
)
_OF_DATA_PARSER = Dialect(
    options=OF_DATA_PARSER,
    work_out=work_out,
    environment=lambda variables: [f"{name}={value}" for name, value in variables.items()],
    partition=partition_of_data_parser,
    limits=limits_of_data_parser,
    node=node,
    signals_batch=True,
    history={"show_duplicates": "true", "disable_truncate_usage_time": "true"},
)

DIALECTS: Mapping[str, Dialect] = {
    "v0.0.45": replace(_OF_DATA_PARSER, configuration="/conf"),
    "v0.0.44": _OF_DATA_PARSER,
    "v0.0.43": _OF_DATA_PARSER,
    "v0.0.42": _OF_DATA_PARSER,
    "v0.0.41": _OF_DATA_PARSER,
    "v0.0.40": _OF_DATA_PARSER,
    "v0.0.38": _OF_22_05,
    "v0.0.37": _OF_22_05,
}
"""By version, newest first."""
