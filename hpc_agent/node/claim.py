"""The claim: of several starts of one job, one runs it.

The file is made with O_EXCL, which is atomic on NFS (open(2), NFSv3 and later) and on the parallel
file systems. Slurm requeues a job under the same id with a higher SLURM_RESTART_COUNT
(sbatch(1)): such a restart takes a code server over, for its earlier attempt is dead. A run worker
is taken over only when its earlier attempt never started the run; else the run would execute twice.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, Optional

from .records import JobContext, start_record, sync_directory, write_json
from .spec import CODE_SERVER


class ClaimRefused(Exception):  # noqa: N818  (an outcome, not a fault)
    """This start must not run the job; ``same_job`` says whether it is the claimant restarted."""

    def __init__(self, reason: str, same_job: bool) -> None:
        super().__init__(reason)
        self.same_job = same_job


def claim(job_dir: str, kind: str, context: JobContext) -> None:
    """Take the job, or raise ClaimRefused with the reason."""
    path = os.path.join(job_dir, "claim")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        _take_over(job_dir, path, kind, context)
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(start_record(context), file)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(job_dir)


def _take_over(job_dir: str, path: str, kind: str, context: JobContext) -> None:
    earlier = _read(path)
    if earlier is None:
        raise ClaimRefused("another start of this job is claiming it right now", same_job=False)
    if not _is_restart(earlier, context):
        owner = "Slurm job %s on %s" % (earlier["slurm_job_id"], earlier["hostname"])
        raise ClaimRefused("this job was already claimed by " + owner, same_job=False)
    if kind != CODE_SERVER and os.path.exists(os.path.join(job_dir, "start.json")):
        raise ClaimRefused(
            "Slurm restarted job %s (restart %d), but its run had already started on %s; "
            "a run is not executed twice: re-execute it from Dagster"
            % (context.slurm_job_id, context.restart_count, earlier["hostname"]),
            same_job=True,
        )
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
