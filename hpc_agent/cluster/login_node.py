"""Slurm, and beside it the login node, where small jobs may live without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from hpc_agent.errors import SchedulerError, SchedulerUnavailableError
from hpc_agent.slurm.partition_facts import KnowsPartitions, PartitionFacts
from hpc_agent.slurm.queue_position import KnowsPositions, Position
from hpc_agent.slurm.scheduler import (
    JobRecord,
    Look,
    NodeInfo,
    PartitionInfo,
    Scheduler,
    Usage,
    found_in,
)

_PREFIX = "local-"


class ClusterAndLoginNode:
    """Two schedulers as one: a job's id says whose it is. Submits to the cluster."""

    def __init__(self, cluster: Scheduler, login: Scheduler) -> None:
        self._cluster = cluster
        self.login = login

    @property
    def name(self) -> str:
        """Return the cluster's name."""
        return self._cluster.name

    async def version(self) -> str:
        """Return the cluster's version."""
        return await self._cluster.version()

    async def submit(
        self, script: Path, *, name: str, comment: str, exclude: Sequence[str] = ()
    ) -> str:
        """Submit to the cluster; the login node's jobs are submitted to ``login``."""
        return await self._cluster.submit(script, name=name, comment=comment, exclude=exclude)

    async def max_array_size(self) -> int:
        """Return the cluster's limit; the login node has no arrays."""
        return await self._cluster.max_array_size()

    async def submit_array(
        self, script: Path, *, name: str, comment: str, size: int, exclude: Sequence[str] = ()
    ) -> str:
        """Submit an array to the cluster."""
        return await self._cluster.submit_array(
            script, name=name, comment=comment, size=size, exclude=exclude
        )

    async def queue(self) -> Look:
        """Return the jobs of both."""
        return await self.login.queue() + await self._cluster.queue()

    async def positions(self, job_ids: Iterable[str]) -> Mapping[str, Position]:
        """Return the cluster's; the login node has no queue."""
        if not isinstance(self._cluster, KnowsPositions):
            return {}
        return await self._cluster.positions(_sorted(job_ids)[1])

    async def history(self, job_ids: Iterable[str], *, since: datetime) -> Look:
        """Ask each for its own jobs."""
        here, there = _sorted(job_ids)
        found = await self.login.history(here, since=since) if here else Look()
        return found + await self._cluster.history(there, since=since) if there else found

    async def usage(self, job_ids: Iterable[str], *, since: datetime) -> Mapping[str, Usage]:
        """Ask each for its own jobs."""
        here, there = _sorted(job_ids)
        found = {**await self.login.usage(here, since=since)} if here else {}
        return {**found, **await self._cluster.usage(there, since=since)} if there else found

    async def show(self, job_id: str) -> JobRecord:
        """Return one job from whoever has it."""
        return await self._owner(job_id).show(job_id)

    async def find(self, key: str, *, since: datetime) -> Look:
        """Look into both; what is found here is told also when the cluster does not answer."""
        found = await self.login.find(key, since=since)
        try:
            return found_in(found, await self._cluster.find(key, since=since))
        except SchedulerUnavailableError as error:
            return found_in(found, error)

    async def cancel(self, job_id: str, *, name: str | None = None) -> None:
        """End a job where it is."""
        await self._owner(job_id).cancel(job_id, name=name)

    async def cancel_all(self, names: Mapping[str, str]) -> None:
        """End each where it is."""
        here, there = _sorted(names)
        for owner, ids in ((self.login, here), (self._cluster, there)):
            if ids:
                await owner.cancel_all({job_id: names[job_id] for job_id in ids})

    async def signal(self, job_id: str, signal: str) -> None:
        """Signal a job where it is."""
        await self._owner(job_id).signal(job_id, signal)

    async def partitions(self) -> Sequence[PartitionInfo]:
        """Return the cluster's partitions."""
        return await self._cluster.partitions()

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the cluster's nodes."""
        return await self._cluster.nodes()

    async def partition_facts(self) -> PartitionFacts:
        """Return the cluster's. Raises SchedulerError where it knows none."""
        if not isinstance(self._cluster, KnowsPartitions):
            raise SchedulerError("this scheduler has no partitions")
        return await self._cluster.partition_facts()

    async def healthy(self) -> bool:
        """Whether the cluster's controller answers."""
        return await self._cluster.healthy()

    def _owner(self, job_id: str) -> Scheduler:
        return self.login if job_id.startswith(_PREFIX) else self._cluster


def _sorted(job_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    ids = list(job_ids)
    here = [job_id for job_id in ids if job_id.startswith(_PREFIX)]
    return here, [job_id for job_id in ids if not job_id.startswith(_PREFIX)]
