"""Jobs by Slurm's own commands, for a login node without an agent."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dagster_hpc.jobs import JobError, JobName, JobRequest, JobStatus, Phase
from dagster_hpc.launchers import queue
from dagster_hpc.launchers.folders import folder, last_lines, private
from dagster_hpc.launchers.job_script import (
    exit_code_of,
    give_back,
    is_withheld,
    job_id_of,
    job_name,
    remember,
    remembered,
    sbatch_argv,
    withhold,
    write,
)
from dagster_hpc.launchers.slurm_commands import leaves_open, output
from dagster_hpc.options import options_of

_log = logging.getLogger(__name__)

_LONGEST_WAIT = 1.0
_FIRST_LOOK, _SELDOM_LOOK = 2.0, 15.0
_LOST_AFTER = 300.0
"""Seconds of absence under a queue that answers; Slurm shows what has ended for as long."""
_LAST_SECONDS = 15.0
_PAUSE = 1.0
_CALL_SECONDS = 120.0
_PATIENCE = 60.0

DIRECTORY = "DAGSTER_HPC_DIRECTORY"


@dataclass
class _Job:
    """A job that this run has, as it was seen last."""

    status: JobStatus
    absent_since: float | None = None


class SbatchLauncher:
    """Calls sbatch for each job, one squeue for all, and scancel.

    ``directory`` is shared with the compute nodes; DAGSTER_HPC_DIRECTORY, else below HOME. A call
    of Slurm may take ``call_seconds``. A job that sbatch may have made is looked for in the queue,
    and a queue that cannot be looked at is looked at again, for ``patience`` seconds.
    """

    is_looked_after = False

    def __init__(
        self,
        run_id: str,
        directory: Path | None = None,
        *,
        call_seconds: float = _CALL_SECONDS,
        patience: float = _PATIENCE,
    ) -> None:
        named = os.environ.get(DIRECTORY)
        self._base = directory or (Path(named) if named else Path.home() / ".dagster-hpc")
        self._run_id = run_id
        self._output = partial(output, seconds=call_seconds)
        self._patience = patience
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
                for job in self._of_earlier_processes():
                    self._find_again(job)
                self._has_read = True
                self._look()
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
                self._output(argv)
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
        try:
            self.cancel(list(self._asked_here))
        except JobError as error:
            _log.warning(
                "whether the jobs of run %s have ended is not known: %s", self._run_id, error
            )

    def _submit(self, request: JobRequest) -> JobStatus:
        if request.job not in self._jobs:
            try:
                if not self._find_again(request.job):
                    self._call_sbatch(request)
            except JobError as error:
                withhold(Path(self.directory(request.job)))
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
        give_back(directory)
        try:
            answer = self._output(sbatch_argv(directory, name, options))
        except JobError as error:
            if not leaves_open(error):
                raise
            if self._appears(request.job, directory):
                return
            words = "no such job is in the queue, and one that still comes does nothing"
            raise JobError(f"{error}; {words}") from None
        job_id = answer.partition(";")[0].strip()
        remember(directory, request.job, job_id)
        self._note(_queued(request.job, job_id))

    def _appears(self, job: JobName, directory: Path) -> bool:
        """Take up a job that sbatch may have made; one that comes after False does nothing."""
        until = time.monotonic() + self._patience
        while True:
            try:
                if self._find_again(job):
                    return True
            except JobError as error:
                _log.info("job %s of run %s is not found yet: %s", job.name, self._run_id, error)
            if time.monotonic() >= until:
                break
            self._closed.wait(_PAUSE)
        if withhold(directory):
            return False
        self._closed.wait(_PAUSE)  # who has the claim is about to say so
        return self._find_again(job)

    def _find_again(self, job: JobName) -> bool:
        """Take up a job that was submitted before, by what its directory and the queue say.

        Raises JobError when the queue cannot be looked at.
        """
        directory = Path(self.directory(job))
        known = remembered(directory)
        if known is None or is_withheld(directory):
            return False
        job_id = known[1] or job_id_of(directory)
        if not job_id:
            name = job_name(self._run_id, job)
            job_id = next((each.job_id for each in self._queue() if each.name == name), "")
        if not job_id:
            return False
        self._note(_queued(job, job_id))
        return True

    def _queue(self) -> list[queue.Entry]:
        """Return the queue, as soon as it can be looked at. Raises JobError."""
        until = time.monotonic() + self._patience
        while True:
            try:
                return queue.look(self._output)
            except JobError:
                if time.monotonic() >= until:
                    raise
            self._closed.wait(_PAUSE)

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
            seen = {each.job_id: each for each in queue.look(self._output)}
        except JobError:
            return
        before = len(self._news)
        for job_id, job in going.items():
            self._judge(job, seen.get(job_id or ""))
        is_calm = len(self._news) == before
        self._look_after = min(self._look_after * 1.5, _SELDOM_LOOK) if is_calm else _FIRST_LOOK

    def _judge(self, job: _Job, seen: queue.Entry | None) -> None:
        directory = Path(self.directory(job.status.job))
        holder = job_id_of(directory)
        if holder and holder != job.status.job_id:
            # sbatch has made two: the other one was first, and this one does nothing.
            self._note(replace(job.status, job_id=holder))
            return
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
