"""The ways in which a program is kept running, and one call for all of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpc_agent.errors import UsageError
from hpc_agent.service import crontab, slurm_job, unit
from hpc_agent.service.crontab import CronJob
from hpc_agent.service.outcome import Outcome
from hpc_agent.service.program import Kind, Program
from hpc_agent.service.slurm_job import AgentJob
from hpc_agent.service.unit import SYSTEM_DIRECTORY, Unit


class Way(enum.Enum):
    """Who starts it again: a user's service manager, the machine's, cron, or Slurm."""

    USER = "user unit"
    SYSTEM = "system unit"
    CRONTAB = "crontab"
    SLURM_JOB = "Slurm job"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A program and how it is to be kept running.

    ``directory`` is for the scripts of cron and Slurm; ``root`` and ``account`` are for a system
    unit, ``options`` for the Slurm job.
    """

    program: Program
    directory: Path
    host: str | None = None
    limited: bool = True
    token_credential: Path | None = None
    root: Path = Path("/")
    account: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def text_of(way: Way, wish: Wish) -> str:
    """Return what would be written. Raises ConfigError, UsageError."""
    _check(way, wish)
    if way is Way.CRONTAB:
        job = _cron_job(wish)
        lines = "\n".join(crontab.lines_of(job))
        return f"{lines}\n\n# {job.script}:\n{crontab.render_script(job)}"
    if way is Way.SLURM_JOB:
        return slurm_job.render_job(_agent_job(wish))
    return unit.render_unit(_unit(way, wish))


def install_service(way: Way, wish: Wish, *, force: bool = False) -> Outcome:
    """Write it, and say what to do next; nothing is started. Raises ConfigError, UsageError."""
    _check(way, wish)
    if way is Way.CRONTAB:
        return crontab.install_crontab(_cron_job(wish), force=force)
    if way is Way.SLURM_JOB:
        return slurm_job.install_job(_agent_job(wish), force=force)
    directory = unit.unit_directory() if way is Way.USER else wish.root / SYSTEM_DIRECTORY
    return unit.install_unit(_unit(way, wish), directory, force=force)


def uninstall_service(kind: Kind, directory: Path, *, system_root: Path | None) -> list[Outcome]:
    """Remove whatever of this user is installed, or the system unit below a root directory."""
    if system_root is not None:
        return [unit.uninstall_unit(system_root / SYSTEM_DIRECTORY, kind, system=True)]
    outcomes = [
        unit.uninstall_unit(unit.unit_directory(), kind),
        crontab.uninstall_crontab(directory, kind),
    ]
    if kind is Kind.AGENT:
        outcomes.append(slurm_job.uninstall_job(directory))
    return [outcome for outcome in outcomes if outcome.changed]


def installed(directory: Path, *, root: Path = Path("/")) -> list[Way]:
    """Return by which ways the agent is kept running, as far as files tell."""
    kind = Kind.AGENT
    marks = {
        Way.USER: unit.unit_directory() / kind.unit_name,
        Way.SYSTEM: root / SYSTEM_DIRECTORY / kind.unit_name,
        Way.CRONTAB: crontab.script_of(directory, kind),
        Way.SLURM_JOB: directory / slurm_job.SCRIPT,
    }
    return [way for way, path in marks.items() if path.exists()]


def _check(way: Way, wish: Wish) -> None:
    if way is Way.SYSTEM and wish.account is None:
        raise UsageError("--system: name the user that it runs as, with --as")
    if way is Way.SLURM_JOB and wish.program.kind is Kind.CONTROL_PLANE:
        raise UsageError("--slurm-job is for the agent: a control plane has an address")


def _unit(way: Way, wish: Wish) -> Unit:
    is_system = way is Way.SYSTEM
    return Unit(
        program=wish.program,
        host=None if is_system else wish.host,  # a system unit is on one machine
        limited=wish.limited and not is_system,
        token_credential=wish.token_credential,
        account=wish.account if is_system else None,
    )


def _cron_job(wish: Wish) -> CronJob:
    return CronJob(program=wish.program, directory=wish.directory, host=wish.host)


def _agent_job(wish: Wish) -> AgentJob:
    return AgentJob(program=wish.program, directory=wish.directory, options=wish.options)
