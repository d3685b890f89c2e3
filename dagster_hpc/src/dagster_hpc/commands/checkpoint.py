"""Commands that take longer than a job may: they stop in good order and go on in the next one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import dagster as dg

from dagster_hpc.jobs import JobError, Tags

VARIABLE = "DAGSTER_HPC_CHECKPOINT_DIRECTORY"

_SIGNAL_TAG = "dagster-hpc/signal"


@dataclass(frozen=True)
class Checkpoint:
    """Says that a command writes checkpoints, and how it asks to go on in another job.

    It gets SIGTERM ``warning_seconds`` before its time is up, writes into the directory that
    ``DAGSTER_HPC_CHECKPOINT_DIRECTORY`` names, and exits with ``exit_code``: then it is submitted
    again, ``resubmissions`` times at most. ``directory`` is relative to the working directory of
    the code location, on a file system that jobs share.
    """

    directory: str = "checkpoints"
    exit_code: int = 85
    resubmissions: int = 10
    warning_seconds: int = 120

    def path(self, context: dg.OpExecutionContext) -> Path:
        """Make the directory of a step: the same in each attempt, and in each re-execution.

        Raises JobError when it cannot be made.
        """
        step_key = context.get_step_execution_context().step.key
        parts = [context.run.root_run_id or context.run_id, _name(step_key)]
        if context.has_partition_key:
            parts.append(_name(context.partition_key))
        path = Path(self.directory, *parts).absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(f"no directory for checkpoints: {error}") from None
        return path

    def tags(self, tags: Tags) -> dict[str, str]:
        """Return Slurm options with the warning, unless they have one of their own."""
        return {_SIGNAL_TAG: f"B:USR1@{self.warning_seconds}", **tags}


def _name(text: str) -> str:
    """Return a name for a directory, another one for each text."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", text)
    if readable == text and len(text) <= 100:
        return text
    return f"{readable[:80]}-{sha256(text.encode()).hexdigest()[:8]}"
