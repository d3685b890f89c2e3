"""A scheduler that does what a test says, for what a real one will not do on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hpc_agent.errors import JobNotFoundError, SchedulerError, SchedulerUnavailableError
from hpc_agent.slurm.queue_position import Position
from hpc_agent.slurm.scheduler import (
    JobRecord,
    Look,
    NodeInfo,
    PartitionInfo,
    Usage,
    is_called,
)


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
    cancel_calls: int = 0
    signalled: list[tuple[str, str]] = field(default_factory=list)
    searches: int = 0
    usage_queries: int = 0
    positioned: dict[str, Position] = field(default_factory=dict)
    position_queries: int = 0
    largest_array: int = 1001
    arrays: list[int] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    excluded: list[tuple[str, ...]] = field(default_factory=list)
    uncancellable: set[str] = field(default_factory=set)
    unreadable: tuple[str, ...] = ()
    no_accounting: SchedulerError | None = None
    answers_when: asyncio.Event | None = None
    looks: int = 0
    accounting_queries: int = 0
    pings: int = 0
    partition_infos: list[PartitionInfo] = field(default_factory=list)
    name: str = "slurm"

    async def version(self) -> str:
        return "scripted"

    async def submit(
        self, script: Path, *, name: str, comment: str, exclude: Sequence[str] = ()
    ) -> str:
        self.submitted.append(script)
        self.excluded.append(tuple(exclude))
        self.comments.append(comment)
        outcome = self.submissions.pop(0)
        if self.answers_when is not None:
            await self.answers_when.wait()
        if isinstance(outcome, SchedulerError):
            raise outcome
        return outcome

    async def max_array_size(self) -> int:
        if self.broken is not None:
            raise self.broken
        return self.largest_array

    async def submit_array(
        self, script: Path, *, name: str, comment: str, size: int, exclude: Sequence[str] = ()
    ) -> str:
        self.arrays.append(size)
        return await self.submit(script, name=name, comment=comment, exclude=exclude)

    async def queue(self) -> Look:
        self.looks += 1
        if self.broken is not None:
            raise self.broken
        return Look(records=tuple(self.queued), unreadable=self.unreadable)

    async def history(self, job_ids: Iterable[str], *, since: datetime) -> Look:
        self.accounting_queries += 1
        if self.no_accounting is not None:
            raise self.no_accounting
        wanted = set(job_ids)
        return Look(records=tuple(each for each in self.accounted if each.job_id in wanted))

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

    async def find(self, comment: str, *, since: datetime) -> Look:
        self.searches += 1
        if self.broken is not None:
            raise self.broken
        return Look(records=tuple(each for each in self.found if is_called(each, comment)))

    async def cancel(self, job_id: str, *, name: str | None = None) -> None:
        await self.cancel_all({job_id: name or ""})

    async def cancel_all(self, names: Mapping[str, str]) -> None:
        self.cancel_calls += 1
        self.cancelled += [job_id for job_id in names if job_id not in self.uncancellable]
        if self.uncancellable & names.keys():
            raise SchedulerUnavailableError(f"scancel {', '.join(names)}: no answer")

    async def signal(self, job_id: str, signal: str) -> None:
        self.signalled.append((job_id, signal))

    async def partitions(self) -> Sequence[PartitionInfo]:
        if not self.up:
            raise SchedulerUnavailableError("sinfo: no answer")
        return self.partition_infos

    async def nodes(self) -> Sequence[NodeInfo]:
        return []

    async def healthy(self) -> bool:
        self.pings += 1
        return self.up
