"""sinfo(1): partitions, nodes and the version of Slurm."""

from __future__ import annotations

import re

from hpc_agent.slurm.printed import read_records, split, unreadable
from hpc_agent.slurm.scheduler import NodeInfo, PartitionInfo
from hpc_agent.slurm.values import FIELD, RECORD, duration_or_none, integer, parse_text

_PARTITION_FIELDS = ("%R", "%P", "%a", "%D", "%C", "%l", "%F")
_NODE_FIELDS = ("%N", "%T", "%c", "%m", "%R", "%G", "%f")
_VERSION = re.compile(r"^slurm\S* (\d+\.\d\S*)$", re.MULTILINE)
_COUNTS = re.compile(r"(\S+?)/(\S+?)/(\S+?)/(\S+)")


def version_arguments() -> list[str]:
    """Build the question for the version."""
    return ["sinfo", "--version"]


def partition_arguments() -> list[str]:
    """Build the query for one record per partition, hidden ones too."""
    return ["sinfo", "--all", f"--format={FIELD.join(_PARTITION_FIELDS)}{RECORD}"]


def node_arguments() -> list[str]:
    """Build the query for one record per node and partition."""
    return ["sinfo", "--all", "--Node", f"--format={FIELD.join(_NODE_FIELDS)}{RECORD}"]


def parse_version(stdout: str) -> str:
    """Return ``slurm 22.05.8`` of ``slurm-wlm 22.05.8``. Raises SchedulerUnreadableError."""
    versions = _VERSION.findall(stdout)
    if not versions:
        raise unreadable("sinfo", stdout)
    return f"slurm {versions[-1]}"


def parse_partitions(stdout: str) -> list[PartitionInfo]:
    """Read the partitions; CPUs and nodes are totals, ``states`` counts nodes.

    Raises SchedulerUnreadableError.
    """
    found = []
    for name, marked, available, nodes, cpus, limit, counts in _rows(stdout, 7):
        of_nodes, of_cpus = _COUNTS.fullmatch(counts), _COUNTS.fullmatch(cpus)
        if of_nodes is None or of_cpus is None:
            raise unreadable("sinfo", stdout)
        found.append(
            PartitionInfo(
                name=name,
                available=available == "up",
                is_default=marked.endswith("*"),
                nodes=_number(nodes),
                cpus=_number(of_cpus[4]),
                max_time_seconds=duration_or_none(limit),
                states=f"{of_nodes[1]} allocated, {of_nodes[2]} idle, {of_nodes[3]} other",
                idle_nodes=_number(of_nodes[2]),
                idle_cpus=_number(of_cpus[2]),
            )
        )
    return found


def parse_nodes(stdout: str) -> list[NodeInfo]:
    """Read the nodes, each with all partitions it is in. Raises SchedulerUnreadableError."""
    partitions: dict[str, list[str]] = {}
    rows = {}
    for row in _rows(stdout, len(_NODE_FIELDS)):
        partitions.setdefault(row[0], []).append(row[4])
        rows[row[0]] = row
    return [
        NodeInfo(
            name=name,
            state=row[1],
            cpus=_number(row[2]),
            memory_mb=_number(row[3]),
            partitions=tuple(partitions[name]),
            gres=parse_text(row[5]),
            features=tuple(word for word in parse_text(row[6]).split(",") if word),
        )
        for name, row in rows.items()
    ]


def _rows(stdout: str, width: int) -> list[list[str]]:
    printed = read_records(stdout, width)
    taken = [split(row, width) for row in printed.rows]
    rows = [fields for each in taken if each is not None for fields in (each[0],)]
    # The last line without its end may be the beginning of a name.
    if printed.unreadable or len(rows) < len(taken) or not stdout.endswith("\n"):
        raise unreadable("sinfo", stdout)
    return rows


def _number(text: str) -> int:
    return integer(text.rstrip("+")) or 0
