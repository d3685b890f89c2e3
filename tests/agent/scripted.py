"""A scheduler that does what a test says, for what a real one will not do on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hpc_agent.errors import JobNotFoundError, SchedulerError
from hpc_agent.slurm.queue_position import Position
from hpc_agent.slurm.scheduler import JobRecord, NodeInfo, PartitionInfo, Usage


@dataclass(slots=True)
class ScriptedScheduler:
    """``submissions`` are consumed one by one: a job id, or an error to raise.

    ``arrays`` are the sizes of the job arrays among what was submitted, ``largest_array`` is what
    the controller allows.
    """

    submissions: list[str | SchedulerError] = field(default_factory=list)
    queued: list[JobRecord] = field(default_factory=list)
    accounted: list[JobRecord] = field(default_factory=list)
    known: list[JobRecord] = field(default_factory=list)
    used: dict[str, Usage] = field(default_factory=dict)
    found: list[JobRecord] = field(default_factory=list)
    broken: SchedulerError | None = None
    up: bool = True
    submitted: list[Path] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    signalled: list[tuple[str, str]] = field(default_factory=list)
    searches: int = 0
    usage_queries: int = 0
    positioned: dict[str, Position] = field(default_factory=dict)
    position_queries: int = 0
    largest_array: int = 1001
    arrays: list[int] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    name: str = "slurm"

    async def version(self) -> str:
        return "scripted"

    async def submit(self, script: Path, *, name: str, comment: str) -> str:
        self.submitted.append(script)
        self.comments.append(comment)
        outcome = self.submissions.pop(0)
        if isinstance(outcome, SchedulerError):
            raise outcome
        return outcome

    async def max_array_size(self) -> int:
        if self.broken is not None:
            raise self.broken
        return self.largest_array

    async def submit_array(self, script: Path, *, name: str, comment: str, size: int) -> str:
        self.arrays.append(size)
        return await self.submit(script, name=name, comment=comment)

    async def queue(self) -> Sequence[JobRecord]:
        if self.broken is not None:
            raise self.broken
        return self.queued

    async def history(self, job_ids: Iterable[str], *, since: datetime) -> Sequence[JobRecord]:
        wanted = set(job_ids)
        return [record for record in self.accounted if record.job_id in wanted]

    async def usage(self, job_ids: Iterable[str], *, since: datetime) -> Mapping[str, Usage]:
        self.usage_queries += 1
        if self.broken is not None:
            raise self.broken
        return {job_id: self.used[job_id] for job_id in job_ids if job_id in self.used}

    async def positions(self, job_ids: Iterable[str]) -> Mapping[str, Position]:
        self.position_queries += 1
        if self.broken is not None:
            raise self.broken
        return {job_id: self.positioned[job_id] for job_id in job_ids if job_id in self.positioned}

    async def show(self, job_id: str) -> JobRecord:
        for record in self.known:
            if record.job_id == job_id:
                return record
        raise JobNotFoundError(job_id)

    async def find(self, comment: str, *, since: datetime) -> Sequence[JobRecord]:
        self.searches += 1
        if self.broken is not None:
            raise self.broken
        return [record for record in self.found if record.comment == comment]

    async def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)

    async def signal(self, job_id: str, signal: str) -> None:
        self.signalled.append((job_id, signal))

    async def partitions(self) -> Sequence[PartitionInfo]:
        return []

    async def nodes(self) -> Sequence[NodeInfo]:
        return []

    async def healthy(self) -> bool:
        return self.up
