"""The files by which the local scheduler and its workers know of each other. Standard library only.

ROOT/lock            held while a job is queued, taken or canceled
ROOT/next_id         the number of the next job
ROOT/slots/N         held (flock) by a worker as long as it lives
ROOT/jobs/ID/        one directory per job, mode 0700
    script           a copy, so that later changes of the original do no harm
    job.json         what to run; written last, by rename: with it the job is queued
    start.json       who runs it since when; with it the job is running
    cancel           asks the worker to end the job
    end.json         how it ended; with it the job has ended
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TypeVar

JOB_VARIABLE = "HPC_AGENT_LOCAL_JOB"
"""In the environment of every process of a job: the job's directory, to find them all again."""

_POLL_SECONDS = 0.05
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to run, as queued; ``script`` is the path that was given."""

    job_id: str
    name: str
    comment: str
    submit_time: float
    argv: list[str]
    working_directory: str
    output: str
    error: str | None
    environment: dict[str, str] = field(default_factory=dict)
    time_limit_seconds: int | None = None
    warning_signal: str | None = None
    warning_seconds: int = 0
    grace_seconds: float = 10.0
    script: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Who runs a job; processes are named by identity(). ``batch`` is None until it is started."""

    start_time: float
    worker: str
    batch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a job ended; ``state`` is spelled as Slurm does."""

    state: str
    end_time: float
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""


_Kept = TypeVar("_Kept", Job, Start, End)


class UnreadableError(Exception):
    """A file of a job that is there and makes no sense."""


class JobDirectory:
    """The directory of one job; a record that is not there (yet) is None."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def job(self) -> Job | None:
        """The job as queued."""
        return _read(self.path / "job.json", Job)

    @property
    def start(self) -> Start | None:
        """The start record."""
        return _read(self.path / "start.json", Start)

    @property
    def end(self) -> End | None:
        """The end record."""
        return _read(self.path / "end.json", End)

    @property
    def is_waiting(self) -> bool:
        """Whether the job is to be started; not one whose files cannot be read."""
        try:
            return self.job is not None and self.start is None and self.end is None
        except UnreadableError:
            return False

    @property
    def is_cancel_requested(self) -> bool:
        """Whether someone has asked the worker to end the job."""
        return (self.path / "cancel").exists()

    def write(self, record: Job | Start | End) -> None:
        """Write one record atomically."""
        target = self.path / f"{type(record).__name__.lower()}.json"
        partial = target.with_suffix(".new")
        partial.write_text(json.dumps(asdict(record)))
        partial.replace(target)

    def request_cancel(self) -> None:
        """Leave the request for the worker."""
        (self.path / "cancel").touch()

    def processes(self) -> list[int]:
        """Return the pids of all living processes of the job, wherever they were moved to."""
        mark = f"{JOB_VARIABLE}={self.path}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found


def job_directories(root: Path) -> list[JobDirectory]:
    """Return the directories of all jobs, oldest first."""
    numbers = [path.name.removeprefix("local-") for path in (root / "jobs").glob("local-*")]
    ordered = sorted(int(number) for number in numbers if _NUMBER.fullmatch(number))
    return [JobDirectory(root / "jobs" / f"local-{number}") for number in ordered]


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the root's lock; the kernel frees it when the holder dies."""
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def identity(pid: int) -> str | None:
    """Name a living process uniquely, also across reboots: ``PID BOOT START``; None when dead.

    Source: proc(5), fields 3 (state) and 22 (starttime) of /proc/PID/stat.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{pid} {boot} {fields[19]}"


def living_pid(name: str | None) -> int | None:
    """Return the pid of a process named by identity() if it still lives."""
    if name is None:
        return None
    pid = int(name.split()[0])
    return pid if identity(pid) == name else None


def send(pids: Iterable[int], number: int) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end_processes(directory: JobDirectory, *, grace_seconds: float) -> None:
    """End all processes of a job: SIGTERM, then SIGKILL to those that remain."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        remaining = directory.processes()
        send(remaining, number)
        deadline = time.monotonic() + grace_seconds
        while remaining and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            remaining = directory.processes()


def _read(path: Path, kind: type[_Kept]) -> _Kept | None:
    """Return what a file keeps, None without one. Raises UnreadableError.

    What a later version has added is passed over.
    """
    known = {each.name for each in fields(kind)}
    try:
        content = json.loads(path.read_text())
        return kind(**{name: value for name, value in content.items() if name in known})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableError(f"{path} cannot be read: {error}") from error
