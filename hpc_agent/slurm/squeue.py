"""squeue(1): all jobs that the controller holds, also those that ended less than MinJobAge ago."""

from __future__ import annotations

import logging

from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import (
    FIELD,
    RECORD,
    duration_or_none,
    parse_exit_code,
    parse_text,
    parse_time,
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
    "Name",
    "Comment",
)


def arguments() -> list[str]:
    """Build the one query for all jobs of this user.

    The size 0 prints a field at its full length (the default cuts at 20), followed by its suffix.
    """
    ends = [FIELD] * (len(_FIELDS) - 1) + [RECORD]
    columns = ",".join(f"{field}:0{end}" for field, end in zip(_FIELDS, ends, strict=True))
    return ["squeue", "--me", "--noheader", "--array", "--states=all", f"--Format={columns}"]


def parse(stdout: str) -> list[JobRecord]:
    """Read the records; one that cannot be read is logged and left out."""
    return Reader().read(stdout)


class Reader:
    """Reads one look at the queue after the other.

    Most of ten thousand jobs say the same as a minute ago: what has been read once is not read
    again, and a record that has not changed is the same object as before.
    """

    def __init__(self) -> None:
        self._known: dict[str, JobRecord | None] = {}

    def read(self, stdout: str) -> list[JobRecord]:
        """Return the records; one that cannot be read is logged and left out."""
        texts = [text.lstrip("\n") for text in stdout.split(RECORD)]
        earlier = self._known
        self._known = {
            text: earlier[text] if text in earlier else _read_record(text)
            for text in texts
            if text.strip()
        }
        return [record for record in self._known.values() if record is not None]


def _read_record(text: str) -> JobRecord | None:
    record = _parse_record(text)
    if record is None:
        logger.warning("squeue printed a record that cannot be read: %r", text)
    return record


def _parse_record(text: str) -> JobRecord | None:
    fields = text.split(FIELD, len(_FIELDS) - 1)
    if len(fields) < len(_FIELDS) or not fields[0].strip():
        return None
    values = dict(zip(_FIELDS, fields, strict=True))
    state = JobState.parse(values["State"])
    if state is JobState.UNKNOWN:
        logger.warning("squeue printed a state that is new to us: %r", values["State"])
    start = parse_time(values["StartTime"])
    exit_code, signal = parse_exit_code(values["exit_code"]) if state.is_final else (None, None)
    return JobRecord(
        job_id=values["JobArrayID"].strip(),
        state=state,
        source="squeue",
        raw_state=values["State"].strip(),
        name=values["Name"],
        comment=parse_text(values["Comment"]),
        reason=parse_text(values["Reason"]),
        partition=values["Partition"],
        nodes=parse_text(values["NodeList"]),
        exit_code=exit_code,
        signal=signal,
        submit_time=parse_time(values["SubmitTime"]),
        start_time=None if state.is_waiting else start,
        end_time=parse_time(values["EndTime"]) if state.is_final else None,
        expected_start=start if state.is_waiting else None,
        time_limit_seconds=duration_or_none(values["TimeLimit"]),
        restarts=int(values["restartcnt"]) if values["restartcnt"].isdigit() else 0,
    )
