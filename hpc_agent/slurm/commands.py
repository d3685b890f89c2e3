"""Run Slurm's commands: argv lists, an explicit environment, and a deadline on every call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

NOT_FOUND = 127
"""The return code of a command that does not exist, as shells and ssh report it."""

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

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = clean_environment(os.environ if environment is None else environment)

    async def run(
        self, argv: Sequence[str], *, environment: Mapping[str, str], timeout_seconds: float
    ) -> CommandResult:
        """Run in a process group of its own, which is killed as a whole at the deadline."""
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
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
        output, errors = bytearray(), bytearray()
        killed = await _finish(process, output, errors, timeout_seconds)
        return CommandResult(
            argv=tuple(argv),
            returncode=None if killed else process.returncode,
            stdout=output.decode(errors="replace"),
            stderr=errors.decode(errors="replace"),
            timeout_seconds=timeout_seconds,
        )


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


async def _finish(
    process: asyncio.subprocess.Process, output: bytearray, errors: bytearray, seconds: float
) -> bool:
    """Read until the process ends; return whether it had to be killed."""
    assert process.stdout is not None and process.stderr is not None  # noqa: S101  # both are pipes
    reading = asyncio.gather(
        _drain(process.stdout, output), _drain(process.stderr, errors), process.wait()
    )
    try:
        async with asyncio.timeout(seconds):
            await asyncio.shield(reading)
    except TimeoutError:
        _kill_group(process.pid)
        await reading
        return True
    except asyncio.CancelledError:
        _kill_group(process.pid)
        await reading
        raise
    return False


async def _drain(stream: asyncio.StreamReader, target: bytearray) -> None:
    while chunk := await stream.read(65536):
        target += chunk


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
