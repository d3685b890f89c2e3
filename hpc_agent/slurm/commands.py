"""Run Slurm's commands: argv lists, an explicit environment, and a deadline on every call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpc_agent.descriptors import as_given

NOT_FOUND = 127
"""The return code of a command that does not exist, as shells and ssh report it."""

_LOOK_SECONDS = 0.5
_LAST_WORDS_SECONDS = 2.0
MOST_BYTES = 256 << 20
"""More is no answer: squeue prints less than half a kilobyte for each job."""

_KEPT_SLURM_VARIABLES = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"})
_DROPPED_PREFIXES = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SCONTROL_")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What a command did; ``returncode`` is None when its deadline passed and it was killed."""

    argv: tuple[str, ...]
    returncode: int | None
    stdout: str
    stderr: str
    timeout_seconds: float = 0.0

    @property
    def succeeded(self) -> bool:
        """Whether the command ended by itself with 0."""
        return self.returncode == 0

    def describe(self) -> str:
        """Say in one line what went wrong, in the command's own words."""
        words = " ".join((self.stderr.strip() or self.stdout.strip()).splitlines())
        if self.returncode is None:
            ending = f"killed after {self.timeout_seconds:g} s without an answer"
        elif self.returncode < 0:
            ending = f"killed by {_signal_name(-self.returncode)}"
        else:
            ending = f"exit code {self.returncode}"
        words = words.removeprefix(f"{self.argv[0]}: ") or "no message"
        return f"{self.argv[0]}: {words} ({ending})"


class CommandRunner(Protocol):
    """Runs commands on a machine that has Slurm's client programs."""

    async def run(
        self, argv: Sequence[str], *, environment: Mapping[str, str], timeout_seconds: float
    ) -> CommandResult:
        """Run to the end or to the deadline; ``environment`` is added to the runner's own.

        Never raises for what the command does. A command that does not exist has return code 127.
        """


class ProcessRunner:
    """Runs commands as child processes of this one."""

    def __init__(
        self, environment: Mapping[str, str] | None = None, *, most_bytes: int = MOST_BYTES
    ) -> None:
        """Take this process's environment when none is given; ``most_bytes`` may be printed."""
        self._most_bytes = most_bytes
        self._environment = clean_environment(os.environ if environment is None else environment)

    async def run(
        self, argv: Sequence[str], *, environment: Mapping[str, str], timeout_seconds: float
    ) -> CommandResult:
        """Run in a process group of its own, which is killed as a whole at the deadline.

        It is killed as well when it prints without end.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *as_given(argv),
                env={**self._environment, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            path = self._environment.get("PATH", os.defpath)
            return CommandResult(
                argv=tuple(argv),
                returncode=NOT_FOUND,
                stdout="",
                stderr=f"command not found ({error.strerror}) on PATH={path}",
            )
        output, errors = _Printed(self._most_bytes), _Printed(self._most_bytes)
        killed = await _finish(process, output, errors, timeout_seconds)
        return CommandResult(
            argv=tuple(argv),
            returncode=None if killed else process.returncode,
            stdout=output.text.decode(errors="replace"),
            stderr=errors.text.decode(errors="replace"),
            timeout_seconds=timeout_seconds,
        )


def is_at_work(argument: str) -> bool:
    """Whether a process of this machine has this argument: a command may outlive who started it.

    Blocks. Processes that cannot be read are those of others.
    """
    word = argument.encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word in path.read_bytes().split(b"\0"):
                return True
    return False


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what changes the behaviour of Slurm's commands.

    An agent may be started by a user with SBATCH_PARTITION or SQUEUE_STATES set, or inside an
    allocation, whose SLURM_JOB_ID and SLURM_CPU_BIND must not reach anything it submits.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT_SLURM_VARIABLES or not name.startswith(_DROPPED_PREFIXES)
    }


class _Printed:
    """What a command has printed into one stream, up to a limit."""

    def __init__(self, most_bytes: int) -> None:
        self.text = bytearray()
        self.most_bytes = most_bytes


async def _finish(
    process: asyncio.subprocess.Process, output: _Printed, errors: _Printed, seconds: float
) -> bool:
    """Read until the process ends; return whether it had to be killed.

    What it leaves behind is waited for a short time only: a daemon that has its standard output, or
    a process that the kernel cannot kill as long as a file system hangs.
    """
    assert process.stdout is not None and process.stderr is not None  # noqa: S101  # both are pipes
    reading: set[asyncio.Task[object]] = {
        asyncio.create_task(_drain(process.stdout, output, process.pid)),
        asyncio.create_task(_drain(process.stderr, errors, process.pid)),
        asyncio.create_task(process.wait()),  # for the ends of both pipes, too
    }
    try:
        async with asyncio.timeout(seconds):
            while process.returncode is None and not all(task.done() for task in reading):
                await asyncio.wait(reading, timeout=_LOOK_SECONDS)
    except TimeoutError:
        return True
    finally:
        if process.returncode is None:
            _kill_group(process.pid)
        await _leave(process, reading)
    return False


async def _leave(process: asyncio.subprocess.Process, reading: set[asyncio.Task[object]]) -> None:
    """Take the last words, and give back what is still open then."""
    _, pending = await asyncio.wait(reading, timeout=_LAST_WORDS_SECONDS)
    for task in pending:
        task.cancel()
    if pending:
        # There is no public way to let go of pipes that others hold open.
        process._transport.close()  # type: ignore[attr-defined]
        await asyncio.wait(pending)


async def _drain(stream: asyncio.StreamReader, printed: _Printed, pid: int) -> None:
    while chunk := await stream.read(65536):
        printed.text += chunk
        if len(printed.text) > printed.most_bytes:
            _kill_group(pid)
            return


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
