"""sbatch(1): submit a job script."""

from __future__ import annotations

import re
from pathlib import Path

_JOB_ID = re.compile(r"(\d+)(?:;\S*)?")


def arguments(script: Path, *, name: str, comment: str, array_size: int | None = None) -> list[str]:
    """Build the command line; all other options are in the script.

    ``--export=NIL`` keeps the caller's environment out of the job without sbatch's "get user
    environment" step, which holds the job when it fails (25.05).
    """
    array = [] if array_size is None else [f"--array=0-{array_size - 1}"]
    return [
        "sbatch",
        "--parsable",
        "--export=NIL",
        f"--comment={comment}",
        f"--job-name={name}",
        *array,
        str(script),
    ]


def parse(stdout: str) -> str | None:
    """Return the job id of ``17`` or ``17;cluster``; None when there is none.

    The id is in the last line: site plugins print messages of their own before it.
    """
    lines = stdout.strip().splitlines()
    match = _JOB_ID.fullmatch(lines[-1].strip()) if lines else None
    return match[1] if match else None
