"""The seam between the agent and whatever starts jobs: one Protocol, several transports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from hpc_agent.slurm.state import JobState


def task_id(array_id: str, index: int) -> str:
    """Return the job id of a task of a job array, as Slurm writes it: ``17_3``."""
    return f"{array_id}_{index}"


def array_id(job_id: str) -> str:
    """Return the id of the array that a task belongs to; a plain job's own id."""
    return job_id.partition("_")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What the scheduler says of one job at one moment.

    ``source`` names the command it came from (``squeue``, ``sacct``, ``scontrol``), or is
    ``pyslurm`` or ``local``.
    Times are timezone-aware UTC. ``exit_code`` and ``signal`` are those of the batch script.
    """

    job_id: str
    state: JobState
    source: str
    raw_state: str = ""
    name: str = ""
    comment: str = ""
    reason: str = ""
    partition: str = ""
    nodes: str = ""
    exit_code: int | None = None
    signal: int | None = None
    submit_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    expected_start: datetime | None = None
    time_limit_seconds: int | None = None
    restarts: int = 0


def is_called(job: JobRecord, comment: str) -> bool:
    """Whether a job has this comment, or the name ``hpc-agent:COMMENT``.

    The name is what remains where accounting does not store comments (AccountingStoreFlags).
    """
    return job.comment == comment or job.name == f"hpc-agent:{comment}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a job has used, as accounting has it; None where that is not known.

    ``cpu_seconds`` is user and system time of all its steps, ``requested_memory_bytes`` that of
    the whole job, ``max_rss_bytes`` that of its largest task. ``gpu_utilization`` is in percent of
    one GPU, ``gpu_memory_bytes`` the most that one task had (TRES gres/gpuutil and gres/gpumem).
    """

    elapsed_seconds: float | None = None
    allocated_cpus: int | None = None
    cpu_seconds: float | None = None
    requested_memory_bytes: int | None = None
    max_rss_bytes: int | None = None
    nodes: int | None = None
    gpus: int | None = None
    gpu_utilization: float | None = None
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionInfo:
    """A partition as sinfo reports it; ``max_time_seconds`` None means unlimited."""

    name: str
    available: bool
    is_default: bool
    nodes: int
    cpus: int
    max_time_seconds: int | None
    states: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """A node as sinfo reports it; memory in MiB."""

    name: str
    state: str
    cpus: int
    memory_mb: int
    partitions: tuple[str, ...]
    gres: str = ""


class Scheduler(Protocol):
    """Submit, watch and cancel jobs. Every method raises SchedulerError or a subclass.

    A method that fails has learned nothing: SchedulerUnavailableError must never be read as the
    absence of a job.
    """

    @property
    def name(self) -> str:
        """``slurm`` or ``local``."""

    async def version(self) -> str:
        """Return the scheduler's version, for example ``slurm 24.11.5``."""

    async def submit(self, script: Path, *, name: str, comment: str) -> str:
        """Submit a job script and return the job id.

        The script's own ``#SBATCH`` lines carry all options; ``name`` and ``comment`` go on the
        command line, and ``--export=NIL`` keeps the caller's environment out of the job.
        Raises SubmitRefusedError, SubmitAmbiguousError, SchedulerLimitError or
        SchedulerUnavailableError.
        """

    async def max_array_size(self) -> int:
        """Return how many tasks one job array may have, 0 or 1 where there are no arrays.

        A transport without arrays returns 0, and nobody calls its ``submit_array``.
        """

    async def submit_array(self, script: Path, *, name: str, comment: str, size: int) -> str:
        """Submit a script as a job array of the tasks 0 to ``size - 1``; return the array's id.

        Task k is the job ``task_id(ID, k)``. All tasks are submitted, or none. Raises what
        ``submit`` raises.
        """

    async def queue(self) -> Sequence[JobRecord]:
        """Return all jobs of this user that the controller holds, in one query."""

    async def history(self, job_ids: Iterable[str], *, since: datetime) -> Sequence[JobRecord]:
        """Return accounting records (last attempt of each job), [] without accounting."""

    async def usage(self, job_ids: Iterable[str], *, since: datetime) -> Mapping[str, Usage]:
        """Return what ended jobs have used (last attempt of each), {} without accounting.

        A job whose figures accounting does not have yet is absent.
        """

    async def show(self, job_id: str) -> JobRecord:
        """Return one job from the controller. Raises JobNotFoundError when it knows none."""

    async def find(self, comment: str, *, since: datetime) -> Sequence[JobRecord]:
        """Return the jobs with exactly this comment (or name): queue first, then history."""

    async def cancel(self, job_id: str) -> None:
        """End the job, whatever it is doing; a job that has ended already is not an error."""

    async def signal(self, job_id: str, signal: str) -> None:
        """Send a signal (``TERM``) to the job's batch process only."""

    async def partitions(self) -> Sequence[PartitionInfo]:
        """Return the partitions this user can see."""

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the nodes this user can see."""

    async def healthy(self) -> bool:
        """Whether the controller answers (``scontrol ping``)."""
