"""One job of a command: asked for or found again, followed to its end, and ended when unwanted."""

from __future__ import annotations

import atexit
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_hpc.commands.exchange import Exchange
from dagster_hpc.commands.messages import Messages, Reported
from dagster_hpc.commands.output import Output
from dagster_hpc.commands.stored import Stored
from dagster_hpc.commands.watch import Watch
from dagster_hpc.jobs import JobError, JobName, JobRequest, JobStatus, Launcher, Phase, Tags
from dagster_hpc.launchers.folders import last_lines
from dagster_hpc.unwanted import are_unwanted

_POLL_SECONDS = 0.2
_LONGEST_POLL_SECONDS = 1.0
"""How late a message is at most: each look opens three files on the shared file system.

While something comes, the pause between two chunks is the shorter one.
"""

_LONGEST_END = 300.0
"""Seconds that a job is given to end once it was told to: the grace period and a busy Slurm."""

_PATIENCE = 300.0
"""Seconds after a job's end in which the file system may still refuse what it has said."""

_REFUSED = "REFUSED"
_INTERRUPTS = (dg.DagsterExecutionInterruptedError, KeyboardInterrupt)


@dataclass(frozen=True)
class Command:
    """What is to run, and with which Slurm options; ``time_out`` in seconds, the queue included."""

    argv: Sequence[str]
    tags: Tags = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: str | None = None
    time_out: float | None = None


class CommandJob:
    """A job that one call of user code is waiting for."""

    def __init__(
        self,
        context: dg.OpExecutionContext,
        launcher: Launcher,
        job: JobName,
        *,
        reported: Reported,
        stored: Stored,
    ) -> None:
        self._context = context
        self._launcher = launcher
        self._job = job
        self._reported = reported
        self._stored = stored
        self.exchange = Exchange(launcher.directory(job))
        self.status = JobStatus(job, Phase.WAITING)

    def follow(self, command: Command, pipes_context: Mapping[str, Any]) -> Iterator[None]:
        """Run the command to its end; yield each time that something may have been reported.

        The job is ended when an exception leaves this before, unless it is an interrupt that asks
        for no end, or nobody goes on with this, which an interrupt leads to as well: then it is
        ended where Dagster has refused what was yielded. Raises Failure when it takes longer than
        it may and when what it has said cannot be read in the end, JobError when it cannot be asked
        for or followed.
        """
        before = self.exchange.prepare(pipes_context)
        logged = self._stored.look(before) if before is not None else Counter[str]()
        messages = Messages(
            self._context, self.exchange, self._reported, name=self._job.name, logged=logged
        )
        output = Output()
        watch = Watch(self._launcher, self._ask_for(command))
        # Dagster leaves a generator as it is when it is interrupted between two of its results.
        atexit.register(self._abandon)
        try:
            try:
                yield from self._until_end(command, watch, messages, output)
            except (*_INTERRUPTS, GeneratorExit):
                # At the end of the interpreter _abandon was called, and threads stand still.
                if not sys.is_finalizing() and self._is_unwanted():
                    self._end(watch, messages, output)
                raise
            except BaseException:
                self._end(watch, messages, output)
                raise
        finally:
            watch.close()
            atexit.unregister(self._abandon)
        is_all = self._pass_on_the_rest(messages, output, _PATIENCE)
        yield
        if not is_all:
            raise self.failure(f"{_end_of(self.status)}; what it has reported cannot be read")

    def failure(self, words: str = "") -> dg.Failure:
        """Return what the step is to fail with; ``words`` instead of how the job ended."""
        status = self.status
        last = last_lines(self._directory / "stderr") or status.message
        name = f"job {status.job_id}" if status.job_id else "the job"
        text = f"{name} {words or _end_of(status)}"
        metadata: dict[str, Any] = {
            "job_id": status.job_id,
            "state": status.state,
            "exit_code": status.exit_code,
            "signal": status.signal,
            "nodes": status.nodes or None,
            "directory": dg.MetadataValue.path(self.exchange.directory),
            "last_lines": dg.MetadataValue.md(f"```\n{last}\n```") if last else None,
        }
        return dg.Failure(
            f"{text}\n{last}" if last else text,
            metadata={label: value for label, value in metadata.items() if value is not None},
            # What policy refuses once it refuses again.
            allow_retries=status.state != _REFUSED,
        )

    def _ask_for(self, command: Command) -> JobStatus:
        request = JobRequest(
            self._job,
            [(self._job.name, command.tags)],
            command=command.argv,
            environment={**command.environment, **self.exchange.environment()},
            working_directory=command.working_directory,
        )
        (status,) = self._launcher.submit([request])
        self._learn(status)
        return status

    def _until_end(
        self, command: Command, watch: Watch, messages: Messages, output: Output
    ) -> Iterator[None]:
        pause = _POLL_SECONDS
        while not self._has_ended():
            has_news = any([messages.pass_on(), output.pass_on(self._directory)])
            pause = _POLL_SECONDS if has_news else min(pause * 1.2, _LONGEST_POLL_SECONDS)
            yield
            if command.time_out is not None and time.time() > messages.asked_at + command.time_out:
                raise self.failure(f"was ended after {command.time_out:g} s, the time that it had")
            self._learn(watch.wait(self.status, pause))

    def _end(self, watch: Watch, messages: Messages, output: Output) -> None:
        """Have the job ended, wait for that, and pass on what it says meanwhile."""
        if self._has_ended():
            return
        until = time.monotonic() + _LONGEST_END
        try:
            self._launcher.cancel([self._job])
            self._context.log.info("the job is told to end")
            while not self._has_ended() and time.monotonic() < until:
                messages.pass_on()
                output.pass_on(self._directory)
                self._learn(watch.wait(self.status, _POLL_SECONDS))
        except JobError as error:
            self._context.log.warning("whether the job has ended is not known: %s", error)
        self._pass_on_the_rest(messages, output, 0)

    def _abandon(self) -> None:
        """Have the job ended by somebody else: this process is about to be gone."""
        if self._is_unwanted():
            with suppress(JobError):
                self._launcher.cancel([self._job])

    def _is_unwanted(self) -> bool:
        error = self._context.get_step_execution_context().step_exception
        if error is not None and not isinstance(error, _INTERRUPTS):
            return True  # the step has failed while it stood still between two results
        return are_unwanted(self._launcher, self._context.instance, self._context.run_id)

    def _pass_on_the_rest(self, messages: Messages, output: Output, patience: float) -> bool:
        """Return whether that was all that the job has reported."""
        until = time.monotonic() + patience
        is_all = messages.pass_on_the_rest(until)
        output.pass_on_the_rest(self._directory, until)
        return is_all

    @property
    def _directory(self) -> Path:
        """Where the job that runs now prints: another than before once it was begun again."""
        return Path(self.status.directory or self.exchange.directory)

    def _has_ended(self) -> bool:
        return self.status.phase is Phase.ENDED

    def _learn(self, status: JobStatus) -> None:
        before, self.status = self.status, status
        if status.state == _REFUSED or (before.phase, before.job_id, before.restarts) == (
            status.phase,
            status.job_id,
            status.restarts,
        ):
            return
        words = f"job {status.job_id}: {status.phase.value}" if status.job_id else "job: waiting"
        details = [status.reason, status.nodes and f"on {status.nodes}"]
        if status.phase is Phase.ENDED:
            details = [_end_of(status)]
        self._context.log.info(", ".join([words, *(each for each in details if each)]))


def _end_of(status: JobStatus) -> str:
    """Return in words how a job has ended."""
    if status.state == _REFUSED:
        return f"was refused: {status.message}"
    if status.signal is not None:
        return f"was ended by signal {status.signal} ({status.state})"
    if status.exit_code is not None:
        return f"ended with exit code {status.exit_code} ({status.state})"
    return f"ended as {status.state}"
