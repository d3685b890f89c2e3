"""sinfo(1): partitions, nodes and the version of Slurm."""

from __future__ import annotations

from collections.abc import Iterable

from hpc_agent.slurm.scheduler import NodeInfo, PartitionInfo
from hpc_agent.slurm.values import FIELD, duration_or_none

_PARTITION_FIELDS = ("%R", "%P", "%a", "%D", "%C", "%l", "%F")
_NODE_FIELDS = ("%N", "%T", "%c", "%m", "%R", "%G")


def version_arguments() -> list[str]:
    """Build the question for the version."""
    return ["sinfo", "--version"]


def partition_arguments() -> list[str]:
    """Build the query for one line per partition."""
    return ["sinfo", "--noheader", f"--format={FIELD.join(_PARTITION_FIELDS)}"]


def node_arguments() -> list[str]:
    """Build the query for one line per node and partition."""
    return ["sinfo", "--noheader", "--Node", f"--format={FIELD.join(_NODE_FIELDS)}"]


def parse_version(stdout: str) -> str:
    """Return ``slurm 22.05.8`` of ``slurm-wlm 22.05.8``."""
    words = stdout.split()
    return f"slurm {words[-1]}" if words else "slurm"


def parse_partitions(stdout: str) -> list[PartitionInfo]:
    """Read the partitions; CPUs and nodes are totals, ``states`` counts nodes."""
    found = []
    for name, marked, available, nodes, cpus, limit, counts in _rows(stdout, 7):
        allocated, idle, other, _ = counts.split("/")
        found.append(
            PartitionInfo(
                name=name,
                available=available == "up",
                is_default=marked.endswith("*"),
                nodes=_number(nodes),
                cpus=_number(cpus.rpartition("/")[2]),
                max_time_seconds=duration_or_none(limit),
                states=f"{allocated} allocated, {idle} idle, {other} other",
            )
        )
    return found


def parse_nodes(stdout: str) -> list[NodeInfo]:
    """Read the nodes, each with all partitions it is in."""
    partitions: dict[str, list[str]] = {}
    rows = {}
    for row in _rows(stdout, 6):
        partitions.setdefault(row[0], []).append(row[4])
        rows[row[0]] = row
    return [
        NodeInfo(
            name=name,
            state=row[1],
            cpus=_number(row[2]),
            memory_mb=_number(row[3]),
            partitions=tuple(partitions[name]),
            gres="" if row[5] == "(null)" else row[5],
        )
        for name, row in rows.items()
    ]


def _rows(stdout: str, width: int) -> Iterable[list[str]]:
    for line in stdout.splitlines():
        fields = line.split(FIELD)
        if len(fields) == width:
            yield fields


def _number(text: str) -> int:
    digits = text.rstrip("+")
    return int(digits) if digits.isdigit() else 0
