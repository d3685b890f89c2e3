"""The claim: of several starts of one job, one runs it.

The file appears complete, by link(2). Slurm requeues a job under the same id with a higher
SLURM_RESTART_COUNT (sbatch(1)): such a restart takes the job over, for its earlier attempt is dead.
Whether a run that was started goes on, the agent says in its answer to the report of the start.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Dict, Optional

from .job_files import NotRegular, create_json, parsed, read_regular, write_json
from .records import JobContext, start_record

# Half a claim can be where links are refused, or of a node program from before they were used. Its
# claimant writes the rest at once or is dead: this is time for NFS to show it, by this host's
# monotonic clock, since the clocks of hosts differ.
HALF_CLAIM_SECONDS = 30.0
_LOOK_SECONDS = 0.5
_LARGEST = 64 << 10


class ClaimRefused(Exception):  # noqa: N818  (an outcome, not a fault)
    """This start must not run the job: another one has it, ``claimed_by`` where that is known."""

    def __init__(self, message: str, claimed_by: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.claimed_by = claimed_by


def claim(
    job_dir: str, context: JobContext, half_claim_seconds: float = HALF_CLAIM_SECONDS
) -> None:
    """Take the job, or raise ClaimRefused. May be repeated after an OSError."""
    path = os.path.join(job_dir, "claim")
    own = start_record(context)
    # The listing comes first: on a full disk no claim can be made, but one can be respected.
    if "claim" not in os.listdir(job_dir) and create_json(path, own):
        if not os.path.isdir(_broken(path)):
            return
        if _read(path) == own:  # whoever took this for half a claim has not done so yet
            return
    earlier = _wait_for_claim(path, half_claim_seconds)
    if earlier is None:
        _replace_half_claim(path, own)
    elif earlier != own:  # it is our own when only the end of a try was refused by the disk
        _require_restart(earlier, context)
        write_json(path, own)
    # The earlier attempt may have left its exit record (preempted, then requeued): it is not ours.
    for stale in ("exit.json", "start.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(job_dir, stale))


def claimant(job_dir: str) -> Optional[Dict[str, Any]]:
    """Return the claim of a job; None for one that says nothing. Raises OSError."""
    return _read(os.path.join(job_dir, "claim"))


def _wait_for_claim(path: str, seconds: float) -> Optional[Dict[str, Any]]:
    """Return what the claim says; None when it has said nothing for that long."""
    deadline = time.monotonic() + seconds
    while True:
        earlier = _read(path)
        if earlier is not None or time.monotonic() >= deadline:
            return earlier
        time.sleep(_LOOK_SECONDS)


def _replace_half_claim(path: str, own: Dict[str, Any]) -> None:
    """Take over from a claimant that died while it claimed; mkdir(2) lets one of several do so."""
    try:
        os.mkdir(_broken(path), 0o700)
    except FileExistsError:
        raise ClaimRefused("another start of this job takes over a claim that was broken") from None
    try:
        write_json(path, own)
    except OSError:
        os.rmdir(_broken(path))
        raise


def _require_restart(earlier: Dict[str, Any], context: JobContext) -> None:
    is_restart = (
        context.slurm_job_id != ""
        and earlier["slurm_job_id"] == context.slurm_job_id
        and context.restart_count > earlier["restart_count"]
    )
    if not is_restart:
        owner = "Slurm job %s on %s" % (earlier["slurm_job_id"], earlier.get("hostname"))
        raise ClaimRefused("this job was already claimed by " + owner, claimed_by=earlier)


def _read(path: str) -> Optional[Dict[str, Any]]:
    """Return a claim; None for one that is not there, is half written, or is nonsense."""
    try:
        record = parsed(read_regular(path, _LARGEST))
    except (FileNotFoundError, NotRegular):
        return None
    if record is None or not isinstance(record.get("slurm_job_id"), str):
        return None
    record.setdefault("restart_count", 0)
    return record if type(record["restart_count"]) is int else None


def _broken(path: str) -> str:
    return path + ".broken"
