"""What a call of the client may say, and the command that comes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

import dagster as dg

from dagster_hpc.commands.checkpoint import Checkpoint
from dagster_hpc.commands.command_job import Command
from dagster_hpc.commands.mpi import parallel, refuse_components
from dagster_hpc.commands.scripts import SlurmScript
from dagster_hpc.commands.variables import variables_of
from dagster_hpc.jobs import JobError, Tags
from dagster_hpc.options import TAG_PREFIX, SlurmOptions
from dagster_hpc.options_table import ONE_OF

Options: TypeAlias = SlurmOptions | Tags

_EXTRA_TAG = TAG_PREFIX + "extra"


class Asked(TypedDict, total=False):
    """The arguments of ``PipesSlurmClient.run`` and ``stream``; either a command or a script.

    ``command`` is a list of words; ``script`` a path or a SlurmScript, whose ``#SBATCH`` lines are
    honoured. ``options`` are SlurmOptions or tags, and win over them. ``extras`` go into the Pipes
    context. ``mpi``: start a process for each task, by srun; a word is for ``srun --mpi``.
    ``time_out`` is in seconds, the time in the queue included. ``where`` "allocation": no job of
    its own, but a process, or with ``mpi`` steps of srun, in the one of this op. ``checkpoint``:
    submit again what asks for it.
    """

    command: Sequence[str]
    script: SlurmScript | str
    options: Options
    environment: Mapping[str, str]
    extras: Mapping[str, Any]
    mpi: bool | str
    working_directory: str
    time_out: float
    where: Literal["job", "allocation"]
    checkpoint: Checkpoint


def is_inside(asked: Asked) -> bool:
    """Whether the command is to run in the allocation of the op."""
    return asked.get("where", "job") == "allocation"


def command_of(context: dg.OpExecutionContext, asked: Asked, defaults: Tags) -> Command:
    """Return the command. Raises JobError for what cannot be run, ScriptError for such a script."""
    script = _script(asked)
    argv = script.argv() if script is not None else list(asked.get("command", ()))
    tags = merged(defaults, script.options.tags() if script else {}, tags_of(asked.get("options")))
    mpi = asked.get("mpi", False)
    refuse_components(argv, is_parallel=bool(mpi))
    if mpi:
        kind = mpi if isinstance(mpi, str) else ""
        argv = parallel(argv, tags, kind=kind, is_step=is_inside(asked))
    if script is not None and script.ignored:
        context.log.info("%s: without effect here: %s", script.path, "; ".join(script.ignored))
    directory = asked.get("working_directory") or (script.directory if script else None)
    return Command(
        argv=argv,
        tags=tags,
        environment={
            **(_as_submitted(asked) if script is not None else {}),
            **variables_of(context),
            **asked.get("environment", {}),
        },
        working_directory=str(Path(directory).absolute()) if directory else None,
        time_out=asked.get("time_out"),
    )


def tags_of(options: Options | None) -> dict[str, str]:
    """Return options as tags, however they are given."""
    if options is None:
        return {}
    return options.tags() if isinstance(options, SlurmOptions) else dict(options)


def merged(*layers: Tags) -> dict[str, str]:
    """Return tags, later ones over earlier ones and over the options that they exclude."""
    found: dict[str, str] = {}
    extra: dict[str, Any] = {}
    for tags in layers:
        for group in ONE_OF:
            names = {TAG_PREFIX + name for name in group}
            if names & tags.keys():
                found = {tag: value for tag, value in found.items() if tag not in names}
        found |= tags
        extra |= json.loads(tags.get(_EXTRA_TAG, "{}"))
    return {**found, _EXTRA_TAG: json.dumps(extra, sort_keys=True)} if extra else found


def _as_submitted(asked: Asked) -> dict[str, str]:
    """Return what a script knows of where sbatch was called: Slurm's own word is of another job.

    ``--chdir`` does not change it (22.05).
    """
    return {"SLURM_SUBMIT_DIR": str(Path(asked.get("working_directory", "")).absolute())}


def _script(asked: Asked) -> SlurmScript | None:
    if bool(asked.get("command")) == bool(asked.get("script")):
        raise JobError("give a command or a script: one of them, and not both")
    script = asked.get("script")
    return SlurmScript(script) if isinstance(script, str) else script
