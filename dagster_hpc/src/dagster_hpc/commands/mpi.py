"""Programs of many processes: started by srun within Slurm, by mpiexec without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from dagster_hpc.jobs import JobError, Tags

_STARTER = str(Path(__file__).with_name("mpi.sh"))
_PREFIX = "dagster-hpc/"
_OF_A_STEP = ("nodes", "ntasks", "ntasks-per-node", "cpus-per-task")


def parallel(
    argv: Sequence[str], tags: Tags, *, kind: str = "", is_step: bool = False
) -> list[str]:
    """Return the command that starts one process of a program for each task.

    ``kind`` is of ``srun --mpi``. ``is_step``: in an allocation that has more to do, so that srun
    is told how many tasks and nodes, and shares the cores of the process that waits.
    """
    options = [f"--mpi={kind}"] if kind else []
    if is_step:
        given = {name: tags.get(_PREFIX + name) for name in _OF_A_STEP}
        options += ["--overlap", *(f"--{name}={value}" for name, value in given.items() if value)]
    return ["/bin/sh", _STARTER, str(_tasks(tags)), *options, "--", *argv]


def refuse_components(argv: Sequence[str], *, is_parallel: bool) -> None:
    """Raise JobError for a command that srun would take for one on a heterogeneous job."""
    if ":" in argv and (is_parallel or PurePath(argv[0]).name == "srun"):
        raise JobError(
            "a command with : is for the components of a heterogeneous job, which are not "
            "supported: one job has nodes of one kind. Start different programs in one job with "
            "srun --multi-prog, or give each part a job of its own with a call of its own"
        )


def _tasks(tags: Tags) -> int:
    """Return how many processes there are without Slurm, which knows it by itself."""
    if f"{_PREFIX}ntasks" in tags:
        return int(tags[f"{_PREFIX}ntasks"])
    nodes = tags.get(f"{_PREFIX}nodes", "1").partition("-")[0]
    return int(nodes) * int(tags.get(f"{_PREFIX}ntasks-per-node", "1"))
