"""A job script as the body of slurmrestd's ``/job/submit``, and what its answer says."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from hpc_agent.errors import (
    SchedulerError,
    SchedulerLimitError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.slurm.batch_options import parse_options
from hpc_agent.slurm.batch_script import directive_words, foreign_directives, interpreter_of
from hpc_agent.slurm.diagnosis import Meaning, meaning_of
from hpc_agent.slurm.rest_client import UNSPECIFIED, Answer, unavailable
from hpc_agent.slurm.rest_options import UntranslatableError, translate
from hpc_agent.slurm.rest_values import number
from hpc_agent.slurm.rest_versions import Dialect
from hpc_agent.slurm.sbatch import joined_nodes

# slurmrestd refuses a job without environment. It has what --export=NIL leaves: see sbatch(1).
_ENVIRONMENT = {"SLURM_EXPORT_ENV": "NIL"}
# sbatch reads these; for a job through slurmrestd they are already so.
_IMPLIED = frozenset({"export", "parsable", "quiet", "verbose"})
# What sbatch itself puts into a job's environment: sbatch(1), OUTPUT ENVIRONMENT VARIABLES.
_TOLD = {
    "cpus-per-gpu": "SLURM_CPUS_PER_GPU",
    "cpus-per-task": "SLURM_CPUS_PER_TASK",
    "dependency": "SLURM_JOB_DEPENDENCY",
    "distribution": "SLURM_DISTRIBUTION",
    "gpus": "SLURM_GPUS",
    "gpus-per-node": "SLURM_GPUS_PER_NODE",
    "gpus-per-socket": "SLURM_GPUS_PER_SOCKET",
    "gpus-per-task": "SLURM_GPUS_PER_TASK",
    "mem-per-gpu": "SLURM_MEM_PER_GPU",
    "ntasks": "SLURM_NTASKS",
    "ntasks-per-core": "SLURM_NTASKS_PER_CORE",
    "ntasks-per-node": "SLURM_NTASKS_PER_NODE",
    "ntasks-per-socket": "SLURM_NTASKS_PER_SOCKET",
    "threads-per-core": "SLURM_THREADS_PER_CORE",
}


def body(
    text: str,
    dialect: Dialect,
    *,
    directory: Path,
    name: str,
    comment: str,
    exclude: Sequence[str] = (),
    array_size: int | None = None,
) -> dict[str, Any]:
    """Return what to post for a script that lies in ``directory``.

    Raises SubmitRefusedError for what is no batch script, and for an option that has no property.
    """
    try:
        interpreter_of(text)
        options = _excluding(read_options(text), exclude)
        properties = {**translate(options, dialect.options), **dialect.work_out(options)}
    except UntranslatableError as error:
        raise SubmitRefusedError(
            f"transport rest cannot pass on {error}; transport cli or ssh can"
        ) from None
    except ValueError as error:
        raise SubmitRefusedError(f"batch script: {error}") from None
    properties.setdefault("current_working_directory", str(directory))
    variables = {_TOLD[option]: value for option, value in options.items() if option in _TOLD}
    variables |= {**_ENVIRONMENT, "SLURM_SUBMIT_DIR": properties["current_working_directory"]}
    properties |= {"name": name, "comment": comment}
    properties["environment"] = dialect.environment(variables)
    if array_size is not None:
        properties["array"] = f"0-{array_size - 1}"
    return {"script": text, "job": properties}


def _excluding(options: dict[str, str], exclude: Sequence[str]) -> dict[str, str]:
    own = options.get("exclude")
    if not exclude or (own is not None and "/" in own):  # a file of nodes: the script's own counts
        return options
    return {**options, "exclude": joined_nodes(own, exclude)}


def read_options(text: str) -> dict[str, str]:
    """Return the options of a script by long name. Raises ValueError."""
    foreign = foreign_directives(text)
    if foreign:
        raise UntranslatableError(f"{foreign[0]!r}, a line that sbatch would read")
    options: dict[str, str] = {}
    for words in directive_words(text):
        if words[:1] in (["hetjob"], ["packjob"]):
            raise UntranslatableError(words[0])
        options |= parse_options(words)
    if options.get("export", "NIL").upper() not in {"NIL", "NONE"}:
        raise UntranslatableError("--export; set variables in agent.yaml (environment)")
    return {name: value for name, value in options.items() if name not in _IMPLIED}


def job_id_in(answer: Answer) -> str:
    """Return the id of the job that was made.

    Raises SubmitAmbiguousError, SchedulerLimitError, SchedulerUnavailableError or
    SubmitRefusedError when the answer has none.
    """
    job_id = number(answer.content.get("job_id"))
    if answer.status < HTTPStatus.BAD_REQUEST and job_id:
        return str(job_id)
    raise _error(answer)


def _error(answer: Answer) -> SchedulerError:
    words = f"slurmrestd: {answer.error} (HTTP status {answer.status})"
    if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
        return unavailable(answer)  # slurmctld was not asked
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return SchedulerLimitError(words)
    meaning = meaning_of(answer.error)
    # What is not from slurmrestd is from a proxy, which may have passed the request on.
    if (
        answer.succeeded
        or not answer.is_from_slurm
        or meaning is Meaning.AMBIGUOUS
        or answer.error_numbers == {UNSPECIFIED}
    ):
        return SubmitAmbiguousError(
            f"{words}; no job id came back, but a job may exist",
            unknown_words=meaning is None and answer.is_from_slurm,
        )
    if meaning is Meaning.LIMIT:
        return SchedulerLimitError(words)
    if meaning is Meaning.UNAVAILABLE:
        return unavailable(answer)
    return SubmitRefusedError(words)
