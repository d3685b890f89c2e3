"""The seam between the agent and whatever starts jobs: one Protocol, several transports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Protocol

from hpc_agent.errors import SchedulerError, SchedulerUnavailableError
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
    ``script`` is its path as the scheduler has it, perhaps with arguments behind it.
    ``cancelled_by`` is the uid of ``CANCELLED by 0``, which only accounting knows. A requeue gives
    a job a new ``submit_time``, and one more of ``restarts``.
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
    script: str = ""
    working_directory: str = ""
    cancelled_by: int | None = None


def name_of(key: str) -> str:
    """Return the name of the job with this key."""
    return f"hpc-agent:{key}"


def is_called(job: JobRecord, key: str) -> bool:
    """Whether a job is that of a key, by any mark that it carries.

    Accounting may not store comments (AccountingStoreFlags), and a site's job_submit plugin may
    rewrite comment and name; then the directory tells, which is named after the key. Where the
    script is known to lie elsewhere the working directory is no mark: what a run submits itself
    inherits it.
    """
    script = PurePosixPath(job.script)
    is_elsewhere = script.is_absolute() and script.parent.name != key
    return bool(key) and (
        job.comment == key
        or job.name == name_of(key)
        or script.parent.name == key
        or (PurePosixPath(job.working_directory).name == key and not is_elsewhere)
    )


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the scheduler's jobs has shown.

    ``unreadable``: pieces of the answer that may have been records. A job that is not among the
    ``records`` may be in one of them, so its absence teaches nothing. ``noise``: lines that are
    surely no records, such as a banner before the output, and were put aside. Both are cut short.
    """

    records: tuple[JobRecord, ...] = ()
    unreadable: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether a job that is not here is absent."""
        return not self.unreadable

    def __add__(self, other: Look) -> Look:
        """Return both looks as one."""
        return Look(
            (*self.records, *other.records),
            (*self.unreadable, *other.unreadable),
            (*self.noise, *other.noise),
        )

    def only(self, wanted: Callable[[JobRecord], bool]) -> Look:
        """Return the look without the records that are not wanted."""
        return replace(self, records=tuple(filter(wanted, self.records)))


def found_in(queued: Look, accounted: Look | SchedulerUnavailableError) -> Look:
    """Return what a search has found in the queue and in accounting.

    Raises the error of an accounting that does not answer, unless the queue has something.
    """
    if isinstance(accounted, SchedulerUnavailableError):
        if not queued.records:
            raise accounted
        return queued + Look(unreadable=(str(accounted),))
    known = {job.job_id for job in queued.records}
    return queued + accounted.only(lambda job: job.job_id not in known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a job has used, as accounting has it; None where that is not known.

    ``cpu_seconds`` is user and system time of all its steps, ``requested_memory_bytes`` that of
    the whole job, ``max_rss_bytes`` that of its largest task. ``gpu_utilization`` is in percent,
    the GPUs of a task added up, ``gpu_memory_bytes`` what a task had on them: the highest that
    Slurm has sampled (TRES gres/gpuutil, gres/gpumem), which keeps no average over time.
    ``billing`` is the weight of what was allocated (TRESBillingWeights).
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
    billing: int | None = None
    energy_joules: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionInfo:
    """A partition as sinfo reports it; ``max_time_seconds`` None means unlimited.

    What is idle is None where a transport does not tell it.
    """

    name: str
    available: bool
    is_default: bool
    nodes: int
    cpus: int
    max_time_seconds: int | None
    states: str = ""
    idle_nodes: int | None = None
    idle_cpus: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """A node as sinfo reports it; memory in MiB."""

    name: str
    state: str
    cpus: int
    memory_mb: int
    partitions: tuple[str, ...]
    gres: str = ""
    features: tuple[str, ...] = ()


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

    async def submit(
        self, script: Path, *, name: str, comment: str, exclude: Sequence[str] = ()
    ) -> str:
        """Submit a job script and return the job id.

        The script's own ``#SBATCH`` lines carry all options; ``name`` and ``comment`` go on the
        command line, and ``--export=NIL`` keeps the caller's environment out of the job.
        ``exclude`` are nodes that it is not to use, besides those that the script excludes.
        Raises SubmitRefusedError, SubmitAmbiguousError, SchedulerLimitError or
        SchedulerUnavailableError.
        """

    async def max_array_size(self) -> int:
        """Return how many tasks one job array may have, 0 or 1 where there are no arrays.

        A transport without arrays returns 0, and nobody calls its ``submit_array``.
        """

    async def submit_array(
        self, script: Path, *, name: str, comment: str, size: int, exclude: Sequence[str] = ()
    ) -> str:
        """Submit a script as a job array of the tasks 0 to ``size - 1``; return the array's id.

        Task k is the job ``task_id(ID, k)``. All tasks are submitted, or none. Raises what
        ``submit`` raises.
        """

    async def queue(self) -> Look:
        """Look at all jobs of this user that the controller holds, in one query.

        Those that ended a short while ago and those in hidden partitions are among them.
        """

    async def history(self, job_ids: Iterable[str], *, since: datetime) -> Look:
        """Look into accounting for these jobs; empty without accounting.

        Of each job the last attempt. Two of one id are two jobs, of different names, the newer one
        last: a controller that has lost its state gives ids again.
        """

    async def usage(self, job_ids: Iterable[str], *, since: datetime) -> Mapping[str, Usage]:
        """Return what ended jobs have used (last attempt of each), {} without accounting.

        A job whose figures accounting does not have yet is absent.
        """

    async def show(self, job_id: str) -> JobRecord:
        """Return one job from the controller. Raises JobNotFoundError when it knows none."""

    async def find(self, key: str, *, since: datetime) -> Look:
        """Look for all jobs that are called so, in the queue and in accounting.

        One that both know is here once, as the queue has it. Raises when nothing was found and one
        of the two did not answer; what was found without the other is a look that is incomplete.
        """

    async def cancel(self, job_id: str, *, name: str | None = None) -> None:
        """End the job, whatever it is doing; a job that has ended already is not an error.

        With a name, only when the scheduler has the job under this name: an id that was given
        again may be a stranger's.
        """

    async def cancel_all(self, names: Mapping[str, str]) -> None:
        """End the jobs of these ids, each only when the scheduler has it under its name.

        All of them are tried before one that cannot be ended raises.
        """

    async def signal(self, job_id: str, signal: str) -> None:
        """Send a signal (``TERM``) to the job's batch process only."""

    async def partitions(self) -> Sequence[PartitionInfo]:
        """Return the partitions this user can see."""

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the nodes this user can see."""

    async def healthy(self) -> bool:
        """Whether the controller answers (``scontrol ping``)."""


async def cancel_each(scheduler: Scheduler, names: Mapping[str, str]) -> None:
    """End jobs one by one, as ``cancel_all`` of a transport without a way to end many at once."""
    failed: SchedulerError | None = None
    for job_id, name in names.items():
        try:
            await scheduler.cancel(job_id, name=name)
        except SchedulerError as error:
            failed = failed or error
    if failed is not None:
        raise failed
