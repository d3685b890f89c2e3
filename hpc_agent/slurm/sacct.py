"""sacct(1): accounting records of jobs, also of those that the controller has forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hpc_agent.slurm.printed import read_lines, shortened, split
from hpc_agent.slurm.scheduler import JobRecord, Look
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import (
    FIELD,
    integer,
    parse_exit_code,
    parse_job_id,
    parse_job_ids,
    parse_text,
    parse_time,
    read_time,
)

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
    "WorkDir",
    "SubmitLine",
    "JobName",
    "Comment",
    "JobIDRaw",  # a single word in the end shows where a comment of several lines ends
)
# So long accounting may take to learn whose a record is.
_LAG = timedelta(minutes=2)
_STATE = re.compile(r"[A-Z_]+\+?(?: by (?P<uid>[0-9]{1,10}))?")


def arguments(job_ids: Iterable[str] | None, *, since: datetime) -> list[str]:
    """Build the query for these jobs, or for all of this user when ``job_ids`` is None.

    ``--duplicates`` returns every attempt of a requeued job; without it a job that runs again can
    look ended.
    """
    argv = [
        "sacct",
        "--allocations",
        "--duplicates",
        "--parsable2",
        f"--delimiter={FIELD}",
        f"--starttime={since.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
        f"--format={','.join(_FIELDS)}",
    ]
    return argv if job_ids is None else [*argv, f"--jobs={','.join(job_ids)}"]


def parse(stdout: str, *, now: datetime | None = None) -> Look:
    """Read the records and keep the last attempt of each job.

    A record that is nobody's yet may be of any job; after a while it never will be: a controller
    that lost its state does not send what it had not sent.
    """
    printed = read_lines(stdout, len(_FIELDS))
    known_since = (now or datetime.now(UTC)) - _LAG
    records: list[JobRecord] = []
    for row in printed.rows:
        taken = split(row, len(_FIELDS))
        try:
            found = [] if taken is None else _records(taken[0])
        except ValueError:
            found = []
        if taken is None or not found:
            is_nobodys = taken is not None and _stays_nobodys(taken[0], known_since)
            (printed.noise if is_nobodys else printed.unreadable).append(row)
            continue
        records += found
        printed.put_aside(taken[1])
    return Look(last_attempts(records), shortened(printed.unreadable), shortened(printed.noise))


def last_attempts(records: Iterable[JobRecord]) -> tuple[JobRecord, ...]:
    """Return the last attempt of each job, the newest job of an id last.

    Attempts have one name; two names under one id are two jobs.
    """
    latest: dict[tuple[str, str], JobRecord] = {}
    for record in sorted(records, key=_submitted):
        latest.pop((record.job_id, record.name), None)
        latest[record.job_id, record.name] = record
    return tuple(latest.values())


def script_in(submit_line: str) -> str:
    """Return the script of a line like ``sbatch --parsable /work/job.sh``, as far as it tells.

    Its words are joined by spaces, whatever they hold: from the last absolute path on, or the last
    word.
    """
    _, slash, path = submit_line.rpartition(" /")
    return f"/{path}" if slash else submit_line.rpartition(" ")[2]


def _records(fields: Sequence[str]) -> list[JobRecord]:
    """Read one record, of all tasks of an array that wait. Raises ValueError when it is none."""
    values = dict(zip(_FIELDS, fields, strict=True))
    if _is_nobodys(values):
        raise ValueError(values["JobID"])
    ids, raw_id = parse_job_ids(values["JobID"]), parse_job_id(values["JobIDRaw"])
    state_word = values["State"].strip()
    match = _STATE.fullmatch(state_word)
    is_torn = values["JobID"].isdigit() and values["JobID"] != raw_id
    if not ids or raw_id is None or match is None or is_torn:
        raise ValueError(values["JobID"])
    exit_code, signal = parse_exit_code(values["ExitCode"])
    state = JobState.parse(state_word)
    minutes = integer(values["TimelimitRaw"])
    record = JobRecord(
        job_id=ids[0],
        state=state,
        source="sacct",
        raw_state=state_word,
        name=values["JobName"],
        comment=parse_text(values["Comment"]),
        # Of an ended job, sacct's Reason is why it last waited.
        reason="" if state.is_final else parse_text(values["Reason"]),
        partition=values["Partition"],
        nodes=parse_text(values["NodeList"].replace("None assigned", "")),
        exit_code=exit_code if state.is_final else None,
        signal=signal if state.is_final else None,
        submit_time=read_time(values["Submit"]),
        start_time=parse_time(values["Start"]),
        end_time=parse_time(values["End"]),
        time_limit_seconds=minutes * 60 if minutes is not None else None,
        script=script_in(values["SubmitLine"]),
        working_directory=values["WorkDir"],
        cancelled_by=int(match["uid"]) if match["uid"] else None,
    )
    return [replace(record, job_id=job_id) for job_id in ids]


def _stays_nobodys(fields: Sequence[str], known_since: datetime) -> bool:
    values = dict(zip(_FIELDS, fields, strict=True))
    began = parse_time(values["Start"]) or parse_time(values["Submit"])
    return _is_nobodys(values) and began is not None and began < known_since


def _is_nobodys(values: Mapping[str, str]) -> bool:
    """Whether accounting does not know yet whose job this is, and shows a name of its own.

    When a step's start or the job's end reaches slurmdbd before the job's start (22.05), the record
    has nothing that a job is known by, and PENDING for its state.
    """
    marks = (values["WorkDir"], values["SubmitLine"], values["Comment"])
    return values["JobName"] in {"", "allocation"} and not any(marks)


def _submitted(record: JobRecord) -> float:
    return record.submit_time.timestamp() if record.submit_time else 0.0
