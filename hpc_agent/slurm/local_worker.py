"""Run queued jobs one after the other: ``python -m hpc_agent.slurm.local_worker ROOT SLOT_FD``.

A worker is a process of its own, detached from the agent, so that jobs outlive it. It holds the
lock of its slot, which it inherits as an open file, and ends when no job is waiting.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_agent.slurm.local_files import (
    End,
    Job,
    JobDirectory,
    Start,
    end_processes,
    identity,
    job_directories,
    locked,
    send,
)

# Blocked and waited for, so that a worker sleeps until something happens: its job ends, someone
# has left a request to cancel, or the machine shuts down.
_SIGNALS = {signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM}
_LONGEST_SLEEP_SECONDS = 5.0


def main() -> None:
    """Take jobs until none is left, or until told to stop."""
    root, slot = Path(sys.argv[1]), int(sys.argv[2])
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    while (directory := _take(root, slot)) is not None:
        if Watch(directory).run():
            return


def _take(root: Path, slot: int) -> JobDirectory | None:
    """Mark the oldest waiting job as running; without one, give the slot back under the same lock.

    So whoever queues a job sees either a free slot or a worker that will take the job.
    """
    with locked(root):
        for directory in job_directories(root):
            if directory.is_waiting:
                worker = identity(os.getpid()) or ""
                directory.write(Start(start_time=time.time(), worker=worker))
                return directory
        os.close(slot)
    return None


@dataclass
class Watch:
    """One job from its start to its end record."""

    directory: JobDirectory
    stopped: bool = False
    ended_because: str | None = None

    def run(self) -> bool:
        """Run the job and record its end; return whether this worker was told to stop."""
        job, start = self.directory.job, self.directory.start
        assert job is not None and start is not None  # noqa: S101  # _take has seen both
        try:
            process = _spawn(job, self.directory)
        except OSError as error:
            self.directory.write(
                End(state="FAILED", end_time=time.time(), exit_code=1, reason=str(error))
            )
            return False
        self.directory.write(replace(start, batch=identity(process.pid)))
        self._wait(process, job)
        # As under Slurm, the job is over when its script is: nothing of it may stay behind.
        end_processes(self.directory, grace_seconds=job.grace_seconds)
        self.directory.write(_ending(process.returncode, self.ended_because))
        return self.stopped

    def _wait(self, process: subprocess.Popen[bytes], job: Job) -> None:
        """Wait for the script to end, ending it when it is canceled or its time is over."""
        limit = job.time_limit_seconds
        end_at = time.monotonic() + limit if limit else float("inf")
        warn_at = end_at - job.warning_seconds if job.warning_signal else float("inf")
        kill_at = float("inf")
        while process.poll() is None:
            now = time.monotonic()
            if now >= warn_at:
                send([process.pid], _number(job.warning_signal))
                warn_at = float("inf")
            if self.ended_because is None and (why := self._why_end(now >= end_at)):
                self.ended_because = why
                send(self.directory.processes(), signal.SIGTERM)
                kill_at = now + job.grace_seconds
            if now >= kill_at:
                send(self.directory.processes(), signal.SIGKILL)
            awaited = min(warn_at, kill_at, end_at if self.ended_because is None else kill_at)
            received = signal.sigtimedwait(
                _SIGNALS, min(_LONGEST_SLEEP_SECONDS, max(0.01, awaited - now))
            )
            if received is not None and received.si_signo == signal.SIGTERM:
                self.stopped = True

    def _why_end(self, is_over: bool) -> str | None:
        if self.directory.is_cancel_requested:
            return "CANCELLED"
        if self.stopped:
            return "NODE_FAIL"
        return "TIMEOUT" if is_over else None


def _spawn(job: Job, directory: JobDirectory) -> subprocess.Popen[bytes]:
    with ExitStack() as files:
        output = files.enter_context(Path(job.output).open("wb"))
        error = output if job.error is None else files.enter_context(Path(job.error).open("wb"))
        return subprocess.Popen(
            [*job.argv, str(directory.path / "script")],
            cwd=job.working_directory,
            env=job.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=error,
            start_new_session=True,
            # The mask is inherited, and a job with SIGTERM blocked could not be ended.
            preexec_fn=_unblock,  # noqa: PLW1509  # safe: a worker has one thread
        )


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _ending(returncode: int, because: str | None) -> End:
    code, number = (returncode, None) if returncode >= 0 else (0, -returncode)
    state = because or ("COMPLETED" if returncode == 0 else "FAILED")
    reason = {"TIMEOUT": "TimeLimit", "NODE_FAIL": "the local worker was told to stop"}.get(state)
    if reason is None:
        reason = "NonZeroExitCode" if state == "FAILED" else ""
    return End(state=state, end_time=time.time(), exit_code=code, signal=number, reason=reason)


def _number(name: str | None) -> int:
    """Return the number of ``TERM`` or ``15``; the null signal for one that does not exist here."""
    if name is None:
        return 0
    if name.isdigit():
        return int(name)
    return int(getattr(signal, f"SIG{name}", 0))


if __name__ == "__main__":
    main()
