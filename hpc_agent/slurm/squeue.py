"""squeue(1): all jobs that the controller holds, also those that ended less than MinJobAge ago."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from hpc_agent.slurm.printed import read_records, shortened, split
from hpc_agent.slurm.scheduler import JobRecord, Look
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import (
    FIELD,
    RECORD,
    duration_or_none,
    integer,
    parse_exit_code,
    parse_job_id,
    parse_text,
    parse_time,
    read_time,
)

logger = logging.getLogger(__name__)

# Free text comes last, so that a separator in it can do the least harm.
_FIELDS = (
    "JobArrayID",
    "State",
    "exit_code",
    "restartcnt",
    "Partition",
    "TimeLimit",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "NodeList",
    "Reason",
    "Command",
    "WorkDir",
    "Name",
    "Comment",
)
_STATE = re.compile(r"[A-Z_]+(?:[+,][A-Z_]+)*")


def arguments(job_id: str | None = None) -> list[str]:
    """Build the one query for all jobs of this user, or for one job.

    The size 0 prints a field at its full length (the default cuts at 20), followed by its suffix.
    Without ``--all`` jobs in hidden partitions are left out (22.05), and those in partitions that
    the user may no longer use (AllowGroups).
    """
    ends = [FIELD] * (len(_FIELDS) - 1) + [RECORD]
    columns = ",".join(f"{field}:0{end}" for field, end in zip(_FIELDS, ends, strict=True))
    one = [] if job_id is None else [f"--jobs={job_id}"]
    return ["squeue", "--me", "--all", "--array", "--states=all", *one, f"--Format={columns}"]


def parse(stdout: str) -> Look:
    """Read what was printed."""
    return Reader().read(stdout)


@dataclass(frozen=True, slots=True)
class _Read:
    """A record and the noise before it; None is what cannot be read."""

    record: JobRecord | None
    noise: str = ""


class Reader:
    """Reads one look at the queue after the other.

    Most of ten thousand jobs say the same as a minute ago: what has been read once is not read
    again, and a record that has not changed is the same object as before.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Read] = {}

    def read(self, stdout: str) -> Look:
        """Return what was printed, as records as far as it can be read."""
        printed = read_records(stdout, len(_FIELDS))
        earlier = self._known
        self._known = {row: earlier[row] if row in earlier else _read(row) for row in printed.rows}
        found = self._known.items()
        return Look(
            tuple(read.record for _, read in found if read.record is not None),
            shortened([*printed.unreadable, *(row for row, read in found if read.record is None)]),
            shortened([*printed.noise, *(read.noise for _, read in found if read.noise)]),
        )


def _read(row: str) -> _Read:
    taken = split(row, len(_FIELDS))
    if taken is None:
        return _Read(None)
    fields, noise = taken
    try:
        return _Read(_record(dict(zip(_FIELDS, fields, strict=True))), noise)
    except ValueError:
        return _Read(None)


def _record(values: dict[str, str]) -> JobRecord:
    """Read one record. Raises ValueError when it cannot be one."""
    job_id, raw_state = parse_job_id(values["JobArrayID"]), values["State"].strip()
    if job_id is None or not _STATE.fullmatch(raw_state):
        raise ValueError(values["JobArrayID"])
    state = JobState.parse(raw_state)
    if state is JobState.UNKNOWN:
        logger.warning("squeue printed a state that is new to us: %r", raw_state)
    start = parse_time(values["StartTime"])
    exit_code, signal = parse_exit_code(values["exit_code"]) if state.is_final else (None, None)
    return JobRecord(
        job_id=job_id,
        state=state,
        source="squeue",
        raw_state=raw_state,
        name=values["Name"],
        comment=parse_text(values["Comment"]),
        reason=parse_text(values["Reason"]),
        partition=values["Partition"],
        nodes=parse_text(values["NodeList"]),
        exit_code=exit_code,
        signal=signal,
        submit_time=read_time(values["SubmitTime"]),
        start_time=None if state.is_waiting else start,
        end_time=parse_time(values["EndTime"]) if state.is_final else None,
        expected_start=start if state.is_waiting else None,
        time_limit_seconds=duration_or_none(values["TimeLimit"]),
        restarts=integer(values["restartcnt"]) or 0,
        script=parse_text(values["Command"]),
        working_directory=parse_text(values["WorkDir"]),
    )
