"""Jobs by Slurm's own commands, for a login node without an agent."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dagster_hpc.jobs import JobError, JobName, JobRequest, JobStatus, Phase
from dagster_hpc.launchers import queue
from dagster_hpc.launchers.folders import folder, last_lines, private
from dagster_hpc.launchers.job_script import (
    exit_code_of,
    job_id_of,
    job_name,
    remember,
    remembered,
    sbatch_argv,
    write,
)
from dagster_hpc.options import options_of

_LONGEST_WAIT = 1.0
_FIRST_LOOK, _SELDOM_LOOK = 2.0, 15.0
_LOST_AFTER = 300.0
"""Seconds of absence under a queue that answers; Slurm shows what has ended for as long."""
_LAST_SECONDS = 15.0
_CALL_SECONDS = 120

DIRECTORY = "DAGSTER_HPC_DIRECTORY"


@dataclass
class _Job:
    """A job that this run has, as it was seen last."""

    status: JobStatus
    absent_since: float | None = None


class SbatchLauncher:
    """Calls sbatch for each job, one squeue for all, and scancel.

    ``directory`` is shared with the compute nodes; DAGSTER_HPC_DIRECTORY, else below HOME.
    """

    is_looked_after = False

    def __init__(self, run_id: str, directory: Path | None = None) -> None:
        named = os.environ.get(DIRECTORY)
        self._base = directory or (Path(named) if named else Path.home() / ".dagster-hpc")
        self._run_id = run_id
        self._lock = threading.Lock()
        self._jobs: dict[JobName, _Job] = {}
        self._asked_here: set[JobName] = set()
        self._news: set[JobName] = set()
        self._look_after = _FIRST_LOOK
        self._looked_at = time.monotonic()
        self._has_read = False
        self._closed = threading.Event()

    def directory(self, job: JobName) -> str:
        """Return a directory on the shared file system."""
        return str(folder(self._base, self._run_id, job))

    def submit(self, requests: Sequence[JobRequest]) -> Sequence[JobStatus]:
        """Call sbatch for what is not known yet, and was not submitted by an earlier process."""
        with self._lock:
            self._look_after = _FIRST_LOOK
            self._asked_here.update(request.job for request in requests)
            return [self._submit(request) for request in requests]

    def changes(self, seconds: float) -> Sequence[JobStatus]:
        """Look at the queue when it is time: every two seconds at first, later every fifteen."""
        self._closed.wait(min(seconds, _LONGEST_WAIT))
        with self._lock:
            if not self._has_read:
                self._has_read = True
                for job in self._of_earlier_processes():
                    self._find_again(job)
            self._look_if_due()
            found = [self._jobs[job].status for job in self._news]
            self._news.clear()
            return found

    def status(self, job: JobName) -> JobStatus | None:
        """Return how a job stands, also one that an earlier process of the run has submitted."""
        with self._lock:
            if job not in self._jobs and not self._find_again(job):
                return None
            self._look_if_due()
            return self._jobs[job].status

    def cancel(self, jobs: Sequence[JobName]) -> None:
        """Let scancel send SIGTERM, and SIGKILL after Slurm's KillWait."""
        with self._lock:
            asked = set(jobs)
            ids = [each.status.job_id for each in self._going() if each.status.job in asked]
            argv = ["scancel", *(job_id for job_id in ids if job_id)]
            if len(argv) > 1:
                _output(argv)
                self._look_after = _FIRST_LOOK

    def close(self) -> None:
        """End what was asked for here and does not end by itself in some seconds.

        Nobody else looks after it. Other processes of the run look after what they have asked for.
        """
        until = time.monotonic() + _LAST_SECONDS
        while time.monotonic() < until and self._is_waited_for():
            self._closed.wait(_LONGEST_WAIT)
            with self._lock:
                self._look()
        self._closed.set()
        self.cancel(list(self._asked_here))

    def _submit(self, request: JobRequest) -> JobStatus:
        if request.job not in self._jobs and not self._find_again(request.job):
            try:
                self._call_sbatch(request)
            except JobError as error:
                refused = JobStatus(request.job, Phase.ENDED, state="REFUSED", message=str(error))
                self._note(refused)
        return self._jobs[request.job].status

    def _call_sbatch(self, request: JobRequest) -> None:
        directory = Path(self.directory(request.job))
        for parent in (self._base, directory.parent, directory):
            private(parent)
        options = options_of(request.steps)
        write(directory, request)
        name = job_name(self._run_id, request.job)
        # The directory knows the name before sbatch does: its answer may be lost.
        remember(directory, request.job, "")
        try:
            answer = _output(sbatch_argv(directory, name, options))
        except subprocess.TimeoutExpired:
            if self._find_again(request.job):
                return
            raise JobError(
                "sbatch has not answered in time, and no such job is in the queue"
            ) from None
        job_id = answer.partition(";")[0].strip()
        remember(directory, request.job, job_id)
        self._note(_queued(request.job, job_id))

    def _find_again(self, job: JobName) -> bool:
        """Take up a job that was submitted before, by what its directory and the queue say."""
        directory = Path(self.directory(job))
        known = remembered(directory)
        if known is None:
            return False
        job_id = known[1] or job_id_of(directory)
        if not job_id:
            name = job_name(self._run_id, job)
            job_id = next((each.job_id for each in queue.look(_output) if each.name == name), "")
        if not job_id:
            return False
        self._note(_queued(job, job_id))
        return True

    def _of_earlier_processes(self) -> list[JobName]:
        found = [remembered(each) for each in (self._base / self._run_id).glob("*")]
        return [known[0] for known in found if known and known[0] not in self._jobs]

    def _going(self) -> list[_Job]:
        return [each for each in self._jobs.values() if each.status.phase is not Phase.ENDED]

    def _is_waited_for(self) -> bool:
        return any(each.status.job in self._asked_here for each in self._going())

    def _look_if_due(self) -> None:
        if time.monotonic() - self._looked_at >= self._look_after:
            self._look()

    def _look(self) -> None:
        """Ask once for all jobs; a query that fails teaches nothing."""
        self._looked_at = time.monotonic()
        going = {job.status.job_id: job for job in self._going()}
        if not going:
            return
        try:
            seen = {each.job_id: each for each in queue.look(_output)}
        except (JobError, subprocess.TimeoutExpired):
            return
        before = len(self._news)
        for job_id, job in going.items():
            self._judge(job, seen.get(job_id or ""))
        is_calm = len(self._news) == before
        self._look_after = min(self._look_after * 1.5, _SELDOM_LOOK) if is_calm else _FIRST_LOOK

    def _judge(self, job: _Job, seen: queue.Entry | None) -> None:
        directory = Path(self.directory(job.status.job))
        code = exit_code_of(directory)
        if seen is not None and not seen.has_ended:
            job.absent_since = None
            status = seen.applied_to(job.status)
        elif seen is not None or code is not None:
            state = seen.state if seen is not None else "COMPLETED" if code == 0 else "FAILED"
            status = _ended(job.status, state, code, directory)
        else:
            job.absent_since = job.absent_since or time.monotonic()
            if time.monotonic() - job.absent_since < _LOST_AFTER:
                return
            status = _ended(job.status, "LOST", None, directory)
        if status != job.status:
            self._note(status)

    def _note(self, status: JobStatus) -> None:
        self._jobs.setdefault(status.job, _Job(status)).status = status
        self._news.add(status.job)


def _queued(job: JobName, job_id: str) -> JobStatus:
    return JobStatus(job, Phase.QUEUED, job_id=job_id, state="PENDING", submitted_at=time.time())


def _ended(status: JobStatus, state: str, code: int | None, directory: Path) -> JobStatus:
    message = "" if state == "COMPLETED" else last_lines(directory / "stderr")
    if state == "LOST":
        message = f"Slurm does not know job {status.job_id} any more\n{message}"
    return replace(
        status,
        phase=Phase.ENDED,
        state=state,
        reason="",
        exit_code=0 if state == "COMPLETED" else code,
        message=message,
        ended_at=time.time(),
    )


def _output(argv: Sequence[str]) -> str:
    """Run a command of Slurm. Raises JobError with what it says, and TimeoutExpired."""
    environment: Mapping[str, str] = {
        # Nothing of an allocation that this process is in, and English words.
        **{name: value for name, value in os.environ.items() if not _is_of_a_job(name)},
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CALL_SECONDS,
            env=environment,
        )
    except OSError as error:
        raise JobError(f"{argv[0]}: {error.strerror}; is this a login node of Slurm?") from error
    if done.returncode != 0:
        raise JobError(f"{argv[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _is_of_a_job(name: str) -> bool:
    return name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"
