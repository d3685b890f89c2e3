"""The Scheduler without Slurm: jobs are processes of this machine that outlive the agent."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hpc_agent.errors import SubmitRefusedError
from hpc_agent.slurm.local_jobs import LocalJobs
from hpc_agent.slurm.said_once import SaidOnce
from hpc_agent.slurm.scheduler import (
    JobRecord,
    Look,
    NodeInfo,
    PartitionInfo,
    Usage,
    cancel_each,
    is_called,
)

# As MinJobAge does for slurmctld: ended jobs stay visible in the queue for a while.
_VISIBLE = timedelta(minutes=5)


class LocalScheduler:
    """Runs at most ``slots`` job scripts at a time, in the order of their submission."""

    def __init__(
        self, root: Path, *, slots: int | None = None, grace_seconds: float = 10.0
    ) -> None:
        """Use a directory on a local disk; jobs that are there are adopted."""
        self._slots = slots or os.cpu_count() or 1
        self._root = root.resolve()
        self._said = SaidOnce()
        self._jobs = LocalJobs(self._root, slots=self._slots, grace_seconds=grace_seconds)

    @property
    def name(self) -> str:
        """Return ``local``."""
        return "local"

    async def version(self) -> str:
        """Return for example ``local Linux 6.1``."""
        return f"local {platform.system()} {platform.release()}"

    async def submit(
        self, script: Path, *, name: str, comment: str, exclude: Sequence[str] = ()
    ) -> str:
        """Queue a job script and return an id like ``local-7``; there is no node to choose."""
        return await asyncio.to_thread(self._jobs.submit, script, name=name, comment=comment)

    async def max_array_size(self) -> int:
        """Return 0: here a submission costs nothing, so there are no arrays."""
        return 0

    async def submit_array(
        self, script: Path, *, name: str, comment: str, size: int, exclude: Sequence[str] = ()
    ) -> str:
        """Raise SubmitRefusedError."""
        raise SubmitRefusedError("the local scheduler has no job arrays")

    async def queue(self) -> Look:
        """Return waiting, running and recently ended jobs; starts workers that are missing."""
        await asyncio.to_thread(self._jobs.start_workers)
        look = await self._look()
        oldest = datetime.now(UTC) - _VISIBLE
        return look.only(lambda job: job.end_time is None or job.end_time >= oldest)

    async def history(self, job_ids: Iterable[str], *, since: datetime) -> Look:
        """Return these jobs, a week back."""
        wanted = set(job_ids)
        return (await self._look()).only(lambda job: job.job_id in wanted)

    async def usage(self, job_ids: Iterable[str], *, since: datetime) -> Mapping[str, Usage]:
        """Return {}: nothing is accounted here, the exit records have the figures."""
        return {}

    async def show(self, job_id: str) -> JobRecord:
        """Return one job. Raises JobNotFoundError."""
        return await asyncio.to_thread(self._jobs.record, job_id)

    async def find(self, key: str, *, since: datetime) -> Look:
        """Return the jobs that are called so."""
        return (await self._look()).only(lambda job: is_called(job, key))

    async def cancel(self, job_id: str, *, name: str | None = None) -> None:
        """End the job by SIGTERM, and by SIGKILL after the grace time."""
        await asyncio.to_thread(self._jobs.cancel, job_id, name)

    async def cancel_all(self, names: Mapping[str, str]) -> None:
        """End the jobs one by one."""
        await cancel_each(self, names)

    async def signal(self, job_id: str, signal: str) -> None:
        """Signal the script's own process."""
        await asyncio.to_thread(self._jobs.signal, job_id, signal)

    async def partitions(self) -> Sequence[PartitionInfo]:
        """Return the one partition, ``local``; its CPUs are the slots."""
        return [
            PartitionInfo(
                name="local",
                available=True,
                is_default=True,
                nodes=1,
                cpus=self._slots,
                max_time_seconds=None,
                states="up",
            )
        ]

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return this machine."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return [
            NodeInfo(
                name=socket.gethostname(),
                state="up",
                cpus=os.cpu_count() or 1,
                memory_mb=memory // 2**20,
                partitions=("local",),
            )
        ]

    async def healthy(self) -> bool:
        """Whether jobs can be queued here, that is, the directory can be written."""
        return await asyncio.to_thread(os.access, self._root, os.W_OK)

    async def _look(self) -> Look:
        look = await asyncio.to_thread(self._jobs.look)
        self._said.unreadable("the local scheduler", look.unreadable)
        return look
