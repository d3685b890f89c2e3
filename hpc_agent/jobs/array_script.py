"""Job arrays of jobs that are alike: what makes them so, and the script that all tasks share.

Two jobs are alike when sbatch would be told the same of both. What their scripts then do need not
be the same, since a task of an array runs the script of its own job directory.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.jobs.directory import SCRIPT, WorkDirectory
from hpc_agent.jobs.preparation import OUTPUT, JobScript
from hpc_agent.jobs.rendering import directive

# Where a job runs and writes is its own; an array has its tasks' directories in their place.
_OWN = ("#SBATCH --output=", "#SBATCH --chdir=")
# Options that mean something else in an array, or are followed for the array as a whole.
_UNFIT = re.compile(
    r"^#(PBS|BSUB)\b|\s(--array|--output|--chdir|--wait|-[aoDW]\b)|hetjob|packjob|singleton"
)


@dataclass(frozen=True, slots=True)
class Head:
    """What sbatch reads of a script: the interpreter, and the options up to the first command."""

    interpreter: str
    directives: tuple[str, ...]

    @classmethod
    def of(cls, script: str) -> Head:
        """Read the head of a script as sbatch(1) does."""
        first, *lines = script.splitlines() or [""]
        directives = []
        for line in lines:
            if line.strip() and not line.startswith("#"):
                break
            if line.startswith(("#SBATCH", "#PBS", "#BSUB")):
                directives.append(line)
        return cls(first.removeprefix("#!").strip() or "/bin/sh", tuple(directives))

    def shared(self) -> Head:
        """Return the head without what is the job's own."""
        kept = tuple(line for line in self.directives if not line.startswith(_OWN))
        return Head(self.interpreter, kept)


def new_array_key() -> str:
    """Return the key of one attempt to submit an array; the next attempt has another."""
    return f"arr-{uuid.uuid4().hex[:20]}"


def likeness_of(script: JobScript, key: str) -> str | None:
    """Return what a job has in common with those alike; None for one that cannot be a task.

    That is one whose options name the job itself, as a site's template may have it.
    """
    head, directory = Head.of(script.text), script.path.parent
    shared = head.shared()
    text = "\n".join([shared.interpreter, *shared.directives])
    is_own = key in text or str(directory) in text
    if is_own or len(head.directives) - len(shared.directives) != len(_OWN):
        return None
    if any(_UNFIT.search(line) for line in shared.directives):
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def array_script(task_script: str, *, array_key: str, directory: Path) -> str:
    """Return the script of an array whose directory links task indices to job directories."""
    shared = Head.of(task_script).shared()
    place = str(directory)
    escaped = place.replace("%", "%%")
    return "\n".join(
        [
            "#!/bin/sh",
            f"# Rendered by hpc-agent; array {array_key}. Each task runs its own job's script.",
            f"#SBATCH {directive(f'--output={escaped}/%a/{OUTPUT}')}",
            f"#SBATCH {directive(f'--chdir={place}')}",
            *shared.directives,
            "",
            f'cd -P -- {shlex.quote(place)}/"$SLURM_ARRAY_TASK_ID" || exit 1',
            f"exec {_command(shared.interpreter)} ./{SCRIPT}",
            "",
        ]
    )


def prepare_array(work: WorkDirectory, array_key: str, keys: Sequence[str]) -> Path:
    """Write the directory of an array of these jobs, in their order; return its script.

    Raises what WorkDirectory raises.
    """
    directory = work.link_tasks(array_key, keys)
    text = array_script(work.script(keys[0]), array_key=array_key, directory=directory)
    return work.write_script(array_key, text)


def _command(interpreter: str) -> str:
    """Return an interpreter as the kernel takes it: a path and one argument (execve(2))."""
    return shlex.join(interpreter.split(maxsplit=1))
