"""The queue of the local scheduler: synchronous, on files, shared with the workers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import hpc_agent
from hpc_agent.account import Account
from hpc_agent.descriptors import as_given
from hpc_agent.errors import (
    JobNotFoundError,
    SchedulerError,
    SchedulerUnreadableError,
    SubmitRefusedError,
)
from hpc_agent.private_directories import private_directory
from hpc_agent.slurm.local_files import (
    JOB_VARIABLE,
    End,
    Job,
    JobDirectory,
    Start,
    UnreadableError,
    end_processes,
    job_directories,
    living_pid,
    locked,
    send,
)
from hpc_agent.slurm.local_script import Script, expand, parse_script
from hpc_agent.slurm.printed import shortened
from hpc_agent.slurm.scheduler import JobRecord, Look
from hpc_agent.slurm.state import JobState

_POLL_SECONDS = 0.02
_BATCH_START_SECONDS = 5.0
_KEEP_SECONDS = 7 * 86400
_REMOVE_INTERVAL_SECONDS = 3600.0
_WORKER_LOG_BYTES = 1 << 20
_PATH = "/usr/local/bin:/usr/bin:/bin"


class LocalJobs:
    """Queues, cancels and reads jobs below one directory on a local disk."""

    def __init__(self, root: Path, *, slots: int, grace_seconds: float) -> None:
        self._root = root
        self._slots = slots
        self._grace_seconds = grace_seconds
        self._ended: dict[str, JobRecord] = {}
        self._remove_at = 0.0
        private_directory(root)
        for name in ("jobs", "slots"):
            private_directory(root / name, parents=False)
        self._remove_old()

    def submit(self, script: Path, *, name: str, comment: str) -> str:
        """Queue a script. Raises SubmitRefusedError when it cannot be a job."""
        try:
            content = script.read_text()
            parsed = parse_script(content)
        except (OSError, ValueError) as error:
            raise SubmitRefusedError(f"cannot submit {script}: {error}") from error
        with locked(self._root):
            job_id = self._next_id()
            directory = JobDirectory(self._root / "jobs" / job_id)
            directory.path.mkdir(mode=0o700)
            (directory.path / "script").write_text(content)
            directory.write(
                self._job(job_id, script.absolute(), parsed, name=name, comment=comment)
            )
        self.start_workers()
        return job_id

    def start_workers(self) -> None:
        """Start a worker for each waiting job that finds a free slot; safe at any time."""
        with locked(self._root):
            waiting = sum(directory.is_waiting for directory in self._unended())
            for number in range(self._slots):
                if waiting > 0 and self._start_worker(self._root / "slots" / str(number)):
                    waiting -= 1

    def look(self) -> Look:
        """Return all jobs that are on disk, oldest first."""
        if time.monotonic() >= self._remove_at:
            self._remove_old()
        records, unreadable = [], []
        for directory in job_directories(self._root):
            try:
                record = self._record(directory)
            except UnreadableError as error:
                unreadable.append(str(error))
                continue
            if record is not None:
                records.append(record)
        return Look(tuple(records), shortened(unreadable))

    def record(self, job_id: str) -> JobRecord:
        """Return one job. Raises JobNotFoundError, or SchedulerUnreadableError."""
        try:
            record = self._record(self._directory(job_id))
        except UnreadableError as error:
            raise SchedulerUnreadableError(str(error)) from error
        if record is None:
            raise JobNotFoundError(f"no job {job_id} in {self._root}")
        return record

    def cancel(self, job_id: str, name: str | None = None) -> None:
        """End a job: at once when it waits, by its worker when it runs.

        With a name, only when it has that name. Raises SchedulerUnreadableError.
        """
        try:
            self._cancel(self._directory(job_id), name)
        except JobNotFoundError:
            return
        except UnreadableError as error:
            raise SchedulerUnreadableError(str(error)) from error

    def _cancel(self, directory: JobDirectory, name: str | None) -> None:
        job = directory.job if name is not None else None
        if name is not None and (job is None or job.name != name):
            return
        with locked(self._root):
            if directory.end is not None:
                return
            start = directory.start
            if start is None:
                directory.write(End(state="CANCELLED", end_time=time.time()))
                return
            directory.request_cancel()
        worker = living_pid(start.worker)
        if worker is not None:
            send([worker], signal.SIGUSR1)
        else:
            end_processes(directory, grace_seconds=self._grace_seconds)
            self._settle_orphan(directory)

    def signal(self, job_id: str, name: str) -> None:
        """Signal the script's own process. Raises JobNotFoundError when the job does not run."""
        number = getattr(signal, f"SIG{name.removeprefix('SIG')}", None)
        if not isinstance(number, signal.Signals):
            raise SchedulerError(f"no signal is called {name!r}; give for example TERM or USR1")
        try:
            self._signal(self._directory(job_id), number)
        except UnreadableError as error:
            raise SchedulerUnreadableError(str(error)) from error

    def _signal(self, directory: JobDirectory, number: int) -> None:
        deadline = time.monotonic() + _BATCH_START_SECONDS
        while directory.end is None:
            start = directory.start
            if start is None:
                break
            if start.batch is not None or time.monotonic() > deadline:
                pid = living_pid(start.batch)
                if pid is not None:
                    send([pid], number)
                    return
                break
            time.sleep(_POLL_SECONDS)
        name = directory.path.name
        raise JobNotFoundError(f"job {name} is not running, so it cannot be signaled")

    def _directory(self, job_id: str) -> JobDirectory:
        prefix, _, number = job_id.partition("-")
        path = self._root / "jobs" / job_id
        if prefix != "local" or not number.isdigit() or not path.is_dir():
            raise JobNotFoundError(f"no job {job_id} in {self._root}")
        return JobDirectory(path)

    def _unended(self) -> list[JobDirectory]:
        directories = job_directories(self._root)
        return [directory for directory in directories if directory.path.name not in self._ended]

    def _record(self, directory: JobDirectory) -> JobRecord | None:
        job_id = directory.path.name
        if job_id in self._ended:
            return self._ended[job_id]
        job, start = directory.job, directory.start
        if job is None:
            return None
        if start is not None and living_pid(start.worker) is None:
            self._settle_orphan(directory)
        end = directory.end
        try:
            record = _to_record(job, start, end)
        except (ArithmeticError, OSError, TypeError, ValueError) as error:
            raise UnreadableError(f"{directory.path} cannot be read: {error}") from error
        if end is not None:
            self._ended[job_id] = record
        return record

    def _settle_orphan(self, directory: JobDirectory) -> None:
        """Record the end of a job whose worker died before it could, once no process is left."""
        if directory.end is not None:
            return
        processes = directory.processes()
        if processes and directory.is_cancel_requested:
            send(processes, signal.SIGKILL)
        if processes:
            return
        state, reason = "NODE_FAIL", "the local worker died, or the machine was restarted"
        if directory.is_cancel_requested:
            state, reason = "CANCELLED", ""
        with locked(self._root):
            if directory.end is None:
                directory.write(End(state=state, end_time=time.time(), reason=reason))

    def _next_id(self) -> str:
        path = self._root / "next_id"
        number = int(path.read_text()) if path.exists() else 1
        partial = path.with_suffix(".new")
        partial.write_text(str(number + 1))
        partial.replace(path)
        return f"local-{number}"

    def _job(self, job_id: str, path: Path, script: Script, *, name: str, comment: str) -> Job:
        account = Account.here()
        directory = Path(script.working_directory or Path.cwd())
        facts = {
            "job_id": job_id,
            "name": name,
            "host": socket.gethostname(),
            "user": account.name,
        }
        return Job(
            job_id=job_id,
            name=name,
            comment=comment,
            submit_time=time.time(),
            script=str(path),
            argv=list(script.interpreter),
            working_directory=str(directory),
            output=str(expand(script.output, directory=directory, **facts)),
            error=script.error and str(expand(script.error, directory=directory, **facts)),
            environment={
                "PATH": _PATH,
                "HOME": account.home,
                "USER": account.name,
                "LOGNAME": account.name,
                "SHELL": account.shell,
                "LANG": os.environ.get("LANG", "C.UTF-8"),
                "SLURM_JOB_ID": job_id,
                "SLURM_JOB_NAME": name,
                "SLURM_SUBMIT_DIR": str(directory),
                "SLURMD_NODENAME": facts["host"],
                JOB_VARIABLE: str(self._root / "jobs" / job_id),
            },
            time_limit_seconds=script.time_limit_seconds,
            warning_signal=script.warning_signal,
            warning_seconds=script.warning_seconds,
            grace_seconds=self._grace_seconds,
        )

    def _start_worker(self, slot: Path) -> bool:
        """Start a worker on a slot unless one lives there; the worker inherits the slot's lock."""
        with slot.open("w") as lock, _worker_log(self._root).open("ab") as log:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            process = subprocess.Popen(
                as_given(
                    [
                        *(sys.executable, "-S", "-E", "-m", "hpc_agent.slurm.local_worker"),
                        *(str(self._root), str(lock.fileno())),
                    ]
                ),
                cwd=Path(hpc_agent.__file__).parent.parent,
                env={"PATH": _PATH, "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
        _WORKERS.append(process)
        _WORKERS[:] = [worker for worker in _WORKERS if worker.poll() is None]
        return True

    def _remove_old(self) -> None:
        self._remove_at = time.monotonic() + _REMOVE_INTERVAL_SECONDS
        for directory in job_directories(self._root):
            with contextlib.suppress(OSError, UnreadableError):
                end = directory.end
                if end is not None and end.end_time < time.time() - _KEEP_SECONDS:
                    shutil.rmtree(directory.path)
                    self._ended.pop(directory.path.name, None)


def _worker_log(root: Path) -> Path:
    """Return where workers write; what is too large by now is put away, and replaces the last."""
    log = root / "worker.log"
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _WORKER_LOG_BYTES:
            log.replace(root / "worker.log.1")
    return log


# Workers of this process, kept so that they are reaped when they end.
_WORKERS: list[subprocess.Popen[bytes]] = []


def _to_record(job: Job, start: Start | None, end: End | None) -> JobRecord:
    state = JobState(end.state) if end else JobState.RUNNING if start else JobState.PENDING
    return JobRecord(
        job_id=job.job_id,
        state=state,
        source="local",
        raw_state=state.value,
        name=job.name,
        comment=job.comment,
        reason=end.reason if end else "" if start else "Resources",
        partition="local",
        nodes=socket.gethostname() if start else "",
        exit_code=end.exit_code if end else None,
        signal=end.signal if end else None,
        submit_time=datetime.fromtimestamp(job.submit_time, UTC),
        start_time=datetime.fromtimestamp(start.start_time, UTC) if start else None,
        end_time=datetime.fromtimestamp(end.end_time, UTC) if end else None,
        time_limit_seconds=job.time_limit_seconds,
        script=job.script,
        working_directory=job.working_directory,
    )
