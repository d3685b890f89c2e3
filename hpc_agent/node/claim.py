"""The claim: of several starts of one job, one runs it.

The file is made with O_EXCL, which is atomic on NFS (open(2), NFSv3 and later) and on the parallel
file systems. Slurm requeues a job under the same id with a higher SLURM_RESTART_COUNT
(sbatch(1)): such a restart takes the job over, for its earlier attempt is dead. Whether a run that
was started goes on, the agent says in its answer to the report of the start.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, Optional

from .records import JobContext, start_record, sync_directory, write_json


class ClaimRefused(Exception):  # noqa: N818  (an outcome, not a fault)
    """This start must not run the job: another Slurm job has it."""


def claim(job_dir: str, context: JobContext) -> None:
    """Take the job, or raise ClaimRefused with the reason."""
    path = os.path.join(job_dir, "claim")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        _take_over(job_dir, path, context)
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(start_record(context), file)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(job_dir)


def _take_over(job_dir: str, path: str, context: JobContext) -> None:
    earlier = _read(path)
    if earlier is None:
        raise ClaimRefused("another start of this job is claiming it right now")
    if not _is_restart(earlier, context):
        owner = "Slurm job %s on %s" % (earlier["slurm_job_id"], earlier["hostname"])
        raise ClaimRefused("this job was already claimed by " + owner)
    write_json(path, start_record(context))
    # The earlier attempt may have left its exit record (preempted, then requeued): it is not ours.
    for stale in ("exit.json", "start.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(job_dir, stale))


def _read(path: str) -> Optional[Dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "slurm_job_id" in record else None


def _is_restart(earlier: Dict[str, Any], context: JobContext) -> bool:
    return (
        context.slurm_job_id != ""
        and earlier["slurm_job_id"] == context.slurm_job_id
        and context.restart_count > int(earlier.get("restart_count", 0))
    )
