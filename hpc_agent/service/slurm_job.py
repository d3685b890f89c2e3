"""The agent as a Slurm job that submits its successor, where login nodes allow no daemons."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpc_agent.errors import ConfigError
from hpc_agent.service.outcome import Outcome
from hpc_agent.service.owned_file import MARKER, put, take_away
from hpc_agent.service.program import Kind, Program
from hpc_agent.service.rendering import render

SCRIPT = "agent-job.sh"
LOG = "agent-job.log"
JOB_NAME = Kind.AGENT.value
_WARNING_SECONDS = 120
# What sbatch takes without quotes; nothing in it ends a line or begins another option.
_VALUE = re.compile(r"[A-Za-z0-9_.,:@+/=-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentJob:
    """The job: ``options`` are sbatch's, ``directory`` holds script and log and is shared."""

    program: Program
    directory: Path
    options: Mapping[str, str] = field(default_factory=dict)


def render_job(job: AgentJob) -> str:
    """Return the job script. Raises ConfigError for options that are none."""
    for option, value in job.options.items():
        if not _VALUE.fullmatch(value):
            raise ConfigError(f"--{option}: {value!r} is nothing that sbatch takes")
    return render(
        "agent_job.sh.j2",
        marker=MARKER,
        name=JOB_NAME,
        warning_seconds=_WARNING_SECONDS,
        log=LOG,
        script=SCRIPT,
        options=job.options,
        directory=job.directory,
        environment=job.program.environment,
        argv=job.program.argv,
    )


def install_job(job: AgentJob, *, force: bool = False) -> Outcome:
    """Write the script and say how it is submitted. Raises ConfigError."""
    path = job.directory / SCRIPT
    changed = put(path, render_job(job), mode=0o755, force=force)
    steps = (
        f"cd {job.directory} && sbatch {SCRIPT}",
        f"Its log is {job.directory / LOG}. It stays on the node where it first runs, whose disk "
        "`home` must be on: to move it, cancel it and submit again.",
    )
    return Outcome(path=path, changed=changed, next_steps=steps)


def uninstall_job(directory: Path) -> Outcome:
    """Remove the script, without which no job submits a successor."""
    path = directory / SCRIPT
    changed = take_away(path)
    steps = (f"scancel --me --name={JOB_NAME}   # ends the one that runs, and the one that waits",)
    return Outcome(path=path, changed=changed, next_steps=steps if changed else ())
