"""Jobs that a run asks for: what is asked, how they stand, and who starts them."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Tags = Mapping[str, str]


class JobError(Exception):
    """A job could not be asked for, or nobody can be asked; the message says what to do."""


class NotAnsweredError(JobError):
    """Nobody answers for the time being: the same can be asked again later."""


class Phase(enum.Enum):
    """Where a job is on its way. WAITING: not submitted yet, ``reason`` says why."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class JobName:
    """Names a job within its run; the same name is never two jobs.

    ``attempt`` counts from 0 what user code repeats by itself (Dagster's retries). What the agent
    repeats after a preemption or a failed node is the same job to user code.
    """

    name: str
    attempt: int = 0


@dataclass(frozen=True)
class JobRequest:
    """One job that is asked for: steps of Dagster (``arguments``), or a command.

    ``steps`` are the keys of the steps that the job carries, each with its tags: Slurm options are
    taken from them, and cover them all. A command names itself there. ``arguments`` is the value of
    ``DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS`` for ``dagster api execute_step``. ``environment`` is
    added to what every job of the location has. ``working_directory`` None is the location's own.
    """

    job: JobName
    steps: Sequence[tuple[str, Tags]]
    arguments: str | None = None
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: str | None = None


@dataclass(frozen=True)
class JobStatus:
    """How a job stands.

    ``state`` and ``reason`` are Slurm's words, "REFUSED" where the job was not taken. ``message``
    is why it ended so, or what it wrote last to standard error. ``exit_code`` and ``signal`` are
    None where they are not known. ``directory`` has the ``stdout`` and ``stderr`` of what runs now:
    another than ``Launcher.directory`` once the agent has begun the job again. Times are seconds
    since the epoch. ``restarts`` counts what the agent and Slurm have repeated.
    """

    job: JobName
    phase: Phase
    job_id: str | None = None
    state: str = ""
    reason: str = ""
    nodes: str = ""
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    directory: str = ""
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    restarts: int = 0

    @property
    def has_succeeded(self) -> bool:
        """Whether it ended with exit code 0 and nobody ended it."""
        return self.phase is Phase.ENDED and self.state == "COMPLETED" and self.exit_code == 0


class Launcher(Protocol):
    """Starts the jobs of one run: the agent, Slurm's own commands, or this machine.

    One that ``is_looked_after`` has somebody else who ends its jobs when the run is over.
    """

    is_looked_after: bool

    def directory(self, job: JobName) -> str:
        """Return the directory in which a job and this process exchange files.

        It may not exist yet; the job's ``stdout`` and ``stderr`` are there once it has started.
        Raises JobError.
        """

    def submit(self, requests: Sequence[JobRequest]) -> Sequence[JobStatus]:
        """Ask for jobs. One that is known already is left alone; one that is refused has ENDED.

        Raises JobError when nobody can be asked, NotAnsweredError where that may pass.
        """

    def changes(self, seconds: float) -> Sequence[JobStatus]:
        """Wait so long at most, and return how those jobs stand that have changed.

        It also returns when another process has written events of the run. The first call returns
        all jobs of the run. Raises JobError.
        """

    def status(self, job: JobName) -> JobStatus | None:
        """Return how a job stands, None when there is none of that name. Raises JobError."""

    def cancel(self, jobs: Sequence[JobName]) -> None:
        """End jobs: SIGINT first, and after the grace period whatever is left. Raises JobError."""

    def close(self) -> None:
        """Leave jobs to themselves where somebody else looks after them; else end them."""
