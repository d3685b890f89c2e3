"""squeue(1) on all users' pending jobs: where in the queue of its partition each of ours is.

Where PrivateData hides other users' jobs (slurm.conf(5)), there is no position to tell.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hpc_agent.slurm.printed import read_records, split, unreadable
from hpc_agent.slurm.scontrol import settings
from hpc_agent.slurm.values import FIELD, RECORD, integer

# The other reasons are about something that no queue brings.
_FOR_ROOM = frozenset({"", "None", "Priority", "Resources", "Licenses", "ReqNodeNotAvail"})
_FIELDS = ("JobArrayID", "PriorityLong", "Partition", "Reason")
_JOB_ID = re.compile(r"([0-9]{1,18})(?:_([0-9]{1,9}))?")
_HELD = 0


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A job is ``number`` of ``among`` jobs in line in a partition; the next to start is 1."""

    number: int
    among: int
    partition: str


@runtime_checkable
class KnowsPositions(Protocol):
    """A scheduler that can tell where in the queue jobs are, at the price of one command."""

    async def positions(self, job_ids: Iterable[str]) -> Mapping[str, Position]:
        """Return where these jobs are, {} where the site hides the jobs of others."""


def arguments() -> list[str]:
    """Build the one query for all pending jobs, in hidden partitions too."""
    ends = [FIELD] * (len(_FIELDS) - 1) + [RECORD]
    columns = ",".join(f"{field}:0{end}" for field, end in zip(_FIELDS, ends, strict=True))
    return ["squeue", "--all", "--array", "--states=PENDING", f"--Format={columns}"]


def are_hidden(config: str) -> bool:
    """Whether ``scontrol show config`` says that users do not see each other's jobs.

    Raises SchedulerUnreadableError.
    """
    return "jobs" in re.findall(r"\w+", settings(config).get("PrivateData", ""))


def parse(stdout: str, job_ids: Iterable[str]) -> dict[str, Position]:
    """Return where these jobs are: by priority, then by age, as Slurm considers them (squeue(1)).

    A job that waits for something else than room has no position and takes none: one that is held
    (priority 0), has a begin time, depends on another or is over a limit. Of several partitions,
    the one counts in which a job is furthest ahead. Records that cannot be read are left out.
    Raises SchedulerUnreadableError when none can be.
    """
    wanted = set(job_ids)
    queues: dict[str, list[tuple[int, int, int, str]]] = defaultdict(list)
    printed = read_records(stdout, len(_FIELDS))
    if not printed.has_header:
        raise unreadable("squeue", stdout)
    for row in printed.rows:
        taken = split(row, len(_FIELDS))
        fields = [field.strip() for field in taken[0]] if taken is not None else [""] * 4
        match, priority = _JOB_ID.fullmatch(fields[0]), integer(fields[1])
        if match is None or priority is None or priority == _HELD or not waits_for_room(fields[3]):
            continue
        entry = (-priority, int(match[1]), int(match[2] or 0), fields[0])
        for partition in set(fields[2].split(",")) - {""}:
            queues[partition].append(entry)
    found: dict[str, Position] = {}
    for partition, queue in queues.items():
        for number, (*_, job_id) in enumerate(sorted(queue), start=1):
            if job_id in wanted:
                position = Position(number, len(queue), partition)
                found[job_id] = min(position, found.get(job_id, position))
    return found


def waits_for_room(reason: str) -> bool:
    """Whether a pending job with this reason is in line, and would start if it were the first."""
    return reason.partition(",")[0] in _FOR_ROOM
