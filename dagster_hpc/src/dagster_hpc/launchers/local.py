"""Jobs as child processes: on a laptop, and within the allocation of a run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from dagster_hpc.jobs import JobName, JobRequest, JobStatus, Phase
from dagster_hpc.launchers.folders import folder, last_lines, private, scratch

_TIED = str(Path(__file__).with_name("tied.py"))
_LONGEST_WAIT = 0.5
"""Nobody says that a child has written events of the run."""
_GRACE = 15.0

ARGUMENTS = "DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS"
"""Where `dagster api execute_step` looks for its arguments."""


@dataclass
class _Lane:
    """Requests of which so many run at once; the others wait."""

    at_once: int
    waiting: deque[tuple[JobRequest, Sequence[str]]] = field(default_factory=deque)
    busy: int = 0


class LocalLauncher:
    """Starts jobs as child processes, as many at once as there are cores for this process.

    Steps of srun, which run on any node, are as many as the allocation has CPUs. All end with this
    process. Slurm options are not looked at.
    """

    is_looked_after = False

    def __init__(self, run_id: str, *, at_once: int | None = None, grace: float = _GRACE) -> None:
        self._run_id = run_id
        self._beside = _Lane(at_once or cores())
        self._srun = _Lane(cpus_of_allocation(os.environ))
        self._grace = grace
        self._changed = threading.Condition()
        self._statuses: dict[JobName, JobStatus] = {}
        self._news: set[JobName] = set()
        self._children: dict[JobName, subprocess.Popen[bytes]] = {}
        self._ending: set[JobName] = set()

    def directory(self, job: JobName) -> str:
        """Return a directory below the machine's temporary one."""
        return str(folder(scratch(), self._run_id, job))

    def submit(self, requests: Sequence[JobRequest]) -> Sequence[JobStatus]:
        """Start processes, or let them wait for others to end."""
        return self.start([(request, ()) for request in requests])

    def start(self, requests: Sequence[tuple[JobRequest, Sequence[str]]]) -> Sequence[JobStatus]:
        """Start processes, each with the words that stand before its command (``srun …``)."""
        with self._changed:
            for request, prefix in requests:
                if request.job in self._statuses:
                    continue
                self._set(JobStatus(request.job, Phase.WAITING, submitted_at=time.time()))
                lane = self._srun if prefix else self._beside
                lane.waiting.append((request, prefix))
                if lane.busy < lane.at_once:
                    lane.busy += 1
                    threading.Thread(target=self._work, args=[lane], daemon=True).start()
            return [self._statuses[request.job] for request, _ in requests]

    def changes(self, seconds: float) -> Sequence[JobStatus]:
        """Wait for a process to start or end, half a second at most."""
        with self._changed:
            if not self._news:
                is_idle = self._is_idle()
                self._changed.wait(seconds if is_idle else min(seconds, _LONGEST_WAIT))
            found = [self._statuses[job] for job in self._news]
            self._news.clear()
            return found

    def status(self, job: JobName) -> JobStatus | None:
        """Return how a process stands that this object has started."""
        with self._changed:
            return self._statuses.get(job)

    def cancel(self, jobs: Sequence[JobName]) -> None:
        """Send SIGINT, and SIGKILL to what is left after the grace period."""
        with self._changed:
            ending = set(jobs)
            self._ending |= ending
            for lane in (self._beside, self._srun):
                for request, _ in lane.waiting:
                    if request.job in ending:
                        self._set(_cancelled(self._statuses[request.job]))
                lane.waiting = deque(each for each in lane.waiting if each[0].job not in ending)
            children = [self._children[job] for job in ending if job in self._children]
            for child in children:
                # srun wants two SIGINT within a second; SIGTERM it hands on.
                _signal(child, signal.SIGTERM if _is_step(child) else signal.SIGINT)
        if children:
            timer = threading.Timer(self._grace, self._kill, [ending])
            timer.daemon = True
            timer.start()

    def close(self) -> None:
        """End what does not end by itself in the grace period, and remove directories."""
        with self._changed:
            jobs = list(self._statuses)
            self._changed.wait_for(self._is_idle, timeout=self._grace)
            left = [job for job in jobs if self._statuses[job].phase is not Phase.ENDED]
        self.cancel(left)
        with self._changed:
            self._changed.wait_for(self._is_idle, timeout=self._grace + 5)
        for job in jobs:
            shutil.rmtree(self.directory(job), ignore_errors=True)
        _remove_empty(scratch() / self._run_id)

    def _work(self, lane: _Lane) -> None:
        """Run what waits, one after the other; the kernel ends a child with this very thread."""
        while True:
            with self._changed:
                if not lane.waiting:
                    lane.busy -= 1
                    return
                request, prefix = lane.waiting.popleft()
            self._run(request, prefix)

    def _run(self, request: JobRequest, prefix: Sequence[str]) -> None:
        directory = Path(self.directory(request.job))
        try:
            child = self._begin(request, prefix, directory)
        except Exception as error:  # noqa: BLE001  (whatever it is, this job has ended)
            with self._changed:
                status = self._statuses[request.job]
                self._set(_ended(status, "FAILED", message=f"it cannot be started: {error}"))
            return
        if child is None:
            return
        # Not reaped before the rest of its group is gone: nobody else has its number so long.
        if hasattr(os, "waitid"):  # macOS has it since Python 3.13
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        else:
            child.wait()
        with self._changed:
            _signal(child, signal.SIGKILL)
            code = child.wait()
            del self._children[request.job]
            was_asked = request.job in self._ending
            state = "CANCELLED" if was_asked else "FAILED" if code else "COMPLETED"
            self._set(
                _ended(
                    self._statuses[request.job],
                    state,
                    exit_code=code if code >= 0 else None,
                    signal=-code if code < 0 else None,
                    message=last_lines(directory / "stderr") if code else "",
                )
            )

    def _begin(
        self, request: JobRequest, prefix: Sequence[str], directory: Path
    ) -> subprocess.Popen[bytes] | None:
        for parent in (scratch(), directory.parent, directory):
            private(parent)
        argv = [sys.executable, "-I", "-S", _TIED, str(os.getpid()), *prefix, *command_of(request)]
        with (
            (directory / "stdout").open("ab") as out,
            (directory / "stderr").open("ab") as err,
            self._changed,
        ):
            if request.job in self._ending:
                self._set(_cancelled(self._statuses[request.job]))
                return None
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=request.working_directory,
                env=environment_of(request, os.environ),
                start_new_session=True,
            )
            self._children[request.job] = child
            self._set(
                replace(
                    self._statuses[request.job],
                    phase=Phase.RUNNING,
                    state="RUNNING",
                    job_id=f"process {child.pid}",
                    started_at=time.time(),
                )
            )
        return child

    def _kill(self, jobs: Set[JobName]) -> None:
        with self._changed:
            for job in jobs & self._children.keys():
                _signal(self._children[job], signal.SIGKILL)

    def _is_idle(self) -> bool:
        return not (self._beside.waiting or self._srun.waiting or self._children)

    def _set(self, status: JobStatus) -> None:
        self._statuses[status.job] = status
        self._news.add(status.job)
        self._changed.notify_all()


def cores() -> int:
    """Return how many cores this process may use: its allocation's, where it has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpus_of_allocation(environment: Mapping[str, str]) -> int:
    """Return how many CPUs a Slurm job has on all its nodes, without one those of this process.

    They are told as in ``72(x2),36`` (SLURM_JOB_CPUS_PER_NODE, sbatch(1)).
    """
    told = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_JOB_CPUS_PER_NODE", ""))
    return sum(int(cpus) * int(nodes or 1) for cpus, nodes in told) or cores()


def command_of(request: JobRequest) -> list[str]:
    """Return the command of a job: its own, or Dagster's for its steps."""
    if request.command:
        return list(request.command)
    return [sys.executable, "-m", "dagster", "api", "execute_step"]


def environment_of(request: JobRequest, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a job."""
    own = dict(request.environment)
    if request.arguments is not None:
        own[ARGUMENTS] = request.arguments
    return {**inherited, **own}


def _ended(
    status: JobStatus,
    state: str,
    *,
    exit_code: int | None = None,
    signal: int | None = None,
    message: str = "",
) -> JobStatus:
    return replace(
        status,
        phase=Phase.ENDED,
        state=state,
        exit_code=exit_code,
        signal=signal,
        message=message,
        ended_at=time.time(),
    )


def _cancelled(status: JobStatus) -> JobStatus:
    return _ended(status, "CANCELLED", message="ended before it was started")


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a child and what it has started."""
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _is_step(child: subprocess.Popen[bytes]) -> bool:
    return isinstance(child.args, list) and "srun" in child.args


def _remove_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return
