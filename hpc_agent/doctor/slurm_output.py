"""Whether Slurm's commands print what Slurm prints, and nothing else.

A wrapper in their place, or the start-up file of a shell that ssh runs, may add lines of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from hpc_agent.config import AgentConfig
from hpc_agent.doctor.facts import OutputFacts, Unknown
from hpc_agent.errors import SchedulerUnreadableError
from hpc_agent.slurm import sacct, scontrol, sinfo, squeue
from hpc_agent.slurm.commands import CommandRunner
from hpc_agent.slurm.printed import shortened
from hpc_agent.slurm.scheduler import Look
from hpc_agent.slurm.values import ENVIRONMENT

_DEADLINE_SECONDS = 60.0
_VERSION = re.compile(r"slurm\S* \d+\.\d\S*")
_PING = re.compile(r"Slurmctld\(\S+\) at .* (UP|DOWN)")


async def gather_output(config: AgentConfig, runner: CommandRunner) -> OutputFacts | Unknown:
    """Run each command, and look at what is printed that is not its output."""
    if config.scheduler.kind != "slurm":
        return Unknown("scheduler.kind is not slurm")
    if config.scheduler.transport == "rest":
        return Unknown("transport rest has none of Slurm's commands, which this check needs")
    strange: dict[str, tuple[str, ...]] = {}
    unreadable: dict[str, tuple[str, ...]] = {}
    asked = 0
    for argv, read in _questions():
        result = await runner.run(argv, environment=ENVIRONMENT, timeout_seconds=_DEADLINE_SECONDS)
        if not result.succeeded:
            continue  # other checks say why: no accounting, no controller, no command
        asked += 1
        look = read(result.stdout)
        if look.noise:
            strange[argv[0]] = look.noise
        if look.unreadable:
            unreadable[argv[0]] = look.unreadable
    if not asked:
        return Unknown("none of Slurm's commands answers")
    return OutputFacts(strange=strange, unreadable=unreadable)


def _questions() -> list[tuple[list[str], Callable[[str], Look]]]:
    return [
        (squeue.arguments(), squeue.parse),
        (sacct.arguments(None, since=datetime.now(UTC)), sacct.parse),
        (["sinfo", "--version"], _single(_VERSION, sinfo.parse_version)),
        (scontrol.ping_arguments(), _single(_PING, scontrol.is_up)),
        (["sbatch", "--version"], _single(_VERSION, sinfo.parse_version)),
    ]


def _single(own: re.Pattern[str], read: Callable[[str], object]) -> Callable[[str], Look]:
    """Return what looks at an answer of single lines, of which Slurm's own are like ``own``."""

    def look(stdout: str) -> Look:
        lines = [line.strip() for line in stdout.split("\n") if line.strip()]
        noise = shortened(line for line in lines if not own.fullmatch(line))
        try:
            read(stdout)
        except SchedulerUnreadableError:
            return Look(unreadable=noise or ("(nothing)",))
        return Look(noise=noise)

    return look


def words_of(found: Mapping[str, Sequence[str]]) -> str:
    """Say in one line which command prints what."""
    return "; ".join(f"{command}: {' / '.join(texts)}" for command, texts in found.items())
