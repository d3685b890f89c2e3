"""The script and the files of a job that sbatch takes without an agent."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from dagster_hpc.jobs import JobName, JobRequest
from dagster_hpc.launchers.local import command_of, environment_of

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOBODY = "nobody"
# `mkdir` claims the job for one of two that sbatch may have made; Slurm's requeue keeps the number.
_SCRIPT = """\
#!/bin/bash
cd {directory} || exit 1
mkdir claim 2>/dev/null && echo "$SLURM_JOB_ID" >claim/job
[ "$(cat claim/job)" = "$SLURM_JOB_ID" ] || exit 0
rm -f exit
# --export of sbatch is for this script: srun in it is to hand on the environment.
unset SLURM_EXPORT_ENV
. ./environment
cd {working_directory} || exit 1
{command} &
child=$!
trap 'kill -TERM "$child"' TERM USR1
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
echo "$code" >{directory}/exit.new && mv {directory}/exit.new {directory}/exit
exit "$code"
"""


def job_name(run_id: str, job: JobName) -> str:
    """Return the name by which a job is found in the queue."""
    digest = hashlib.sha256(f"{run_id}\n{job.name}\n{job.attempt}".encode()).hexdigest()[:20]
    return f"dagster-hpc:{digest}"


def write(directory: Path, request: JobRequest) -> None:
    """Write the script, and the environment beside it: no secret is in sbatch's arguments."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "SBATCH_"))
    }
    lines = [
        f"export {name}={shlex.quote(value)}"
        for name, value in environment_of(request, inherited).items()
        if _NAME.fullmatch(name)
    ]
    _write(directory / "environment", "\n".join(lines) + "\n")
    script = _SCRIPT.format(
        directory=shlex.quote(str(directory)),
        working_directory=shlex.quote(request.working_directory or str(Path.cwd())),
        command=shlex.join(command_of(request)),
    )
    _write(directory / "job.sh", script)


def sbatch_argv(directory: Path, name: str, options: Mapping[str, str]) -> Sequence[str]:
    """Return the arguments of sbatch; a job that Slurm repeats would tell its events twice."""
    directives = [
        f"--{option}" if value == "true" else f"--{option}={value}"
        for option, value in options.items()
        if value != "false"
    ]
    requeue = [] if options.get("requeue") == "true" else ["--no-requeue"]
    return [
        "sbatch",
        "--parsable",
        "--export=NIL",
        f"--job-name={name}",
        f"--output={_literal(directory / 'stdout')}",
        f"--error={_literal(directory / 'stderr')}",
        f"--chdir={directory}",
        *requeue,
        *directives,
        str(directory / "job.sh"),
    ]


def remember(directory: Path, job: JobName, job_id: str) -> None:
    """Write down whose directory it is, and the number of its job, "" as long as it has none."""
    content = {"name": job.name, "attempt": job.attempt, "job_id": job_id}
    new = directory / "job.json.new"
    new.write_text(json.dumps(content))
    new.replace(directory / "job.json")


def remembered(directory: Path) -> tuple[JobName, str] | None:
    """Return whose directory it is and the number of its job, None where there is none."""
    try:
        content = json.loads((directory / "job.json").read_text())
        return JobName(content["name"], content["attempt"]), content["job_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def job_id_of(directory: Path) -> str:
    """Return the number of the job that holds the claim, "" before there is one."""
    holder = _holder(directory)
    return "" if holder == _NOBODY else holder


def withhold(directory: Path) -> bool:
    """Take the claim, so that a job does nothing which comes after all; False if one has it."""
    try:
        (directory / "claim").mkdir()
        (directory / "claim" / "job").write_text(f"{_NOBODY}\n")
    except OSError:
        return is_withheld(directory)
    return True


def is_withheld(directory: Path) -> bool:
    """Whether no job that was submitted until now may do anything."""
    return _holder(directory) == _NOBODY


def give_back(directory: Path) -> None:
    """Let the next job have the claim that was withheld."""
    if is_withheld(directory):
        shutil.rmtree(directory / "claim", ignore_errors=True)


def exit_code_of(directory: Path) -> int | None:
    """Return the exit code that the script has left, None before its end."""
    try:
        return int((directory / "exit").read_text())
    except (OSError, ValueError):
        return None


def _holder(directory: Path) -> str:
    try:
        return (directory / "claim" / "job").read_text().strip()
    except OSError:
        return ""


def _literal(path: Path) -> str:
    """Return a path of sbatch's in which nothing is a pattern."""
    return str(path).replace("%", "%%")


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
