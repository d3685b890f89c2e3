"""sacct(1): accounting records of jobs, also of those that the controller has forgotten."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import (
    FIELD,
    parse_exit_code,
    parse_job_ids,
    parse_text,
    parse_time,
)

logger = logging.getLogger(__name__)

_FIELDS = (
    "JobID",
    "State",
    "ExitCode",
    "Submit",
    "Start",
    "End",
    "TimelimitRaw",
    "Partition",
    "NodeList",
    "Reason",
    "JobName",
    "Comment",
    "JobIDRaw",  # a single word in the end shows where a comment of several lines ends
)


def arguments(job_ids: Iterable[str] | None, *, since: datetime) -> list[str]:
    """Build the query for these jobs, or for all of this user when ``job_ids`` is None.

    ``--duplicates`` returns every attempt of a requeued job; without it a job that runs again can
    look ended.
    """
    argv = [
        "sacct",
        "--noheader",
        "--allocations",
        "--duplicates",
        "--parsable2",
        f"--delimiter={FIELD}",
        f"--starttime={since.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
        f"--format={','.join(_FIELDS)}",
    ]
    return argv if job_ids is None else [*argv, f"--jobs={','.join(job_ids)}"]


def parse(stdout: str) -> list[JobRecord]:
    """Read the records and keep the last attempt of each job."""
    latest: dict[str, JobRecord] = {}
    for fields in _rows(stdout):
        record = _record(fields)
        for job_id in parse_job_ids(record.job_id):
            earlier = latest.get(job_id)
            if earlier is None or _submitted(record) >= _submitted(earlier):
                latest[job_id] = replace(record, job_id=job_id)
    return list(latest.values())


def _rows(stdout: str) -> Iterable[Sequence[str]]:
    """Yield the fields of each record, joining lines that a newline in a name has torn apart."""
    row = ""
    for line in stdout.splitlines():
        row = f"{row}\n{line}" if row else line
        if row.count(FIELD) >= len(_FIELDS) - 1:
            head, _, last = row.rpartition(FIELD)
            yield [*head.split(FIELD, len(_FIELDS) - 2), last]
            row = ""
    if row.strip():
        logger.warning("sacct printed a record that cannot be read: %r", row)


def _record(fields: Sequence[str]) -> JobRecord:
    values = dict(zip(_FIELDS, fields, strict=True))
    exit_code, signal = parse_exit_code(values["ExitCode"])
    state = JobState.parse(values["State"])
    minutes = values["TimelimitRaw"]
    return JobRecord(
        job_id=values["JobID"].strip(),
        state=state,
        source="sacct",
        raw_state=values["State"].strip(),
        name=values["JobName"],
        comment=parse_text(values["Comment"]),
        # Of an ended job, sacct's Reason is why it last waited.
        reason="" if state.is_final else parse_text(values["Reason"]),
        partition=values["Partition"],
        nodes=parse_text(values["NodeList"].replace("None assigned", "")),
        exit_code=exit_code if state.is_final else None,
        signal=signal if state.is_final else None,
        submit_time=parse_time(values["Submit"]),
        start_time=parse_time(values["Start"]),
        end_time=parse_time(values["End"]),
        time_limit_seconds=int(minutes) * 60 if minutes.isdigit() else None,
    )


def _submitted(record: JobRecord) -> float:
    return record.submit_time.timestamp() if record.submit_time else 0.0
