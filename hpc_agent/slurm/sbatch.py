"""sbatch(1): submit a job script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hpc_agent.slurm.batch_options import parse_options
from hpc_agent.slurm.batch_script import directive_words

# ``17`` or ``17;cluster`` by --parsable, the rest where a wrapper has taken that away.
_JOB_ID = re.compile(r"(?:Submitted batch job )?(\d{1,18})(?:;\S*| on cluster \S+)?")


def arguments(
    script: Path,
    *,
    name: str,
    comment: str,
    array_size: int | None = None,
    exclude: str | None = None,
) -> list[str]:
    """Build the command line; all other options are in the script.

    ``--export=NIL`` keeps the caller's environment out of the job without sbatch's "get user
    environment" step, which holds the job when it fails (25.05). ``exclude`` takes the place of
    the script's own.
    """
    array = [] if array_size is None else [f"--array=0-{array_size - 1}"]
    excluded = [] if exclude is None else [f"--exclude={exclude}"]
    return [
        "sbatch",
        "--parsable",
        "--export=NIL",
        f"--comment={comment}",
        f"--job-name={name}",
        *array,
        *excluded,
        str(script),
    ]


def parse(stdout: str) -> str | None:
    """Return the job id that was printed; None when there is none, or more than one.

    Site plugins and wrappers print lines of their own before and after it.
    """
    matches = (_JOB_ID.fullmatch(line.strip()) for line in stdout.split("\n"))
    ids = {match[1] for match in matches if match is not None}
    return ids.pop() if len(ids) == 1 else None


def merged_exclude(printed: str, exclude: Sequence[str]) -> str | None:
    """Return ``--exclude`` for a script as it was printed, with what it excludes itself.

    None where both cannot be had together: the script names a file of nodes, or cannot be read.
    Then its own counts.
    """
    _, shebang, rest = printed.partition("#!")
    try:
        own = own_exclude(f"{shebang}{rest}")
    except ValueError:
        return None
    if own is not None and "/" in own:
        return None
    return joined_nodes(own, exclude)


def own_exclude(script: str) -> str | None:
    """Return the nodes that a script excludes, None without any. Raises ValueError."""
    options: dict[str, str] = {}
    for words in directive_words(script):
        options |= parse_options(words)
    return options.get("exclude")


def joined_nodes(own: str | None, more: Sequence[str]) -> str:
    """Return one list of nodes."""
    return ",".join(dict.fromkeys([*([own] if own else []), *more]))
