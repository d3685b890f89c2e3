"""Jobs in slurmrestd's JSON: those of the controller, and those of accounting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpc_agent.slurm.printed import shortened
from hpc_agent.slurm.rest_values import (
    NOT_AS_DOCUMENTED,
    exit_code,
    job_state,
    moment,
    number,
    small_number,
    text,
)
from hpc_agent.slurm.sacct import last_attempts, script_in
from hpc_agent.slurm.scheduler import JobRecord, Look, Usage, array_id, task_id
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import integer, parse_job_id, parse_job_ids, parse_text

Json = Mapping[str, Any]


def of_queue(jobs: Sequence[Any], *, user: str) -> Look:
    """Return one user's jobs; each task of an array that waits is one.

    A name that slurmrestd cannot find out (``user_name`` is null) is that of the number that this
    user's other jobs have.
    """
    entries = [job for job in jobs if isinstance(job, Mapping)]
    own = {number(job.get("user_id")) for job in entries if job.get("user_name") == user} - {None}

    def may_be_own(job: Any) -> bool:
        if not isinstance(job, Mapping) or job.get("user_name"):
            return not isinstance(job, Mapping) or job["user_name"] == user
        return not own or number(job.get("user_id")) in own

    look = of_controller([job for job in jobs if may_be_own(job)])
    if own:
        return look
    nameless = [job for job in entries if not job.get("user_name")]
    ids = {text(job.get("job_id")) for job in nameless}
    whose = [f"whose job is {job_id}?" for job_id in sorted(ids)]
    return look.only(lambda job: array_id(job.job_id) not in ids) + Look(
        unreadable=shortened(whose)
    )


def of_controller(jobs: Iterable[Any]) -> Look:
    """Return all jobs of the controller."""
    return _look(jobs, controller_records)


def _look(jobs: Iterable[Any], read: Callable[[Json], list[JobRecord]]) -> Look:
    records: list[JobRecord] = []
    unreadable = []
    for job in jobs:
        try:
            found = read(job)
        except NOT_AS_DOCUMENTED as error:
            unreadable.append(f"{str(job)[:200]}: {error!r}")
            continue
        records += found
    return Look(tuple(records), shortened(unreadable))


def controller_records(job: Json) -> list[JobRecord]:
    """Read a job of the controller: one record, or one for each of the tasks that it stands for."""
    state, raw_state = _state(job.get("job_state"))
    code, signal = exit_code(job.get("exit_code")) if state.is_final else (None, None)
    start, minutes = moment(job.get("start_time")), number(job.get("time_limit"))
    record = JobRecord(
        job_id=_id(job),
        state=state,
        source="slurmrestd",
        raw_state=raw_state,
        name=text(job.get("name")),
        comment=text(job.get("comment")),
        reason=parse_text(text(job.get("state_reason"))),
        partition=text(job.get("partition")),
        nodes=text(job.get("nodes")),
        exit_code=code,
        signal=signal,
        submit_time=moment(job.get("submit_time")),
        start_time=None if state.is_waiting else start,
        end_time=moment(job.get("end_time")) if state.is_final else None,
        expected_start=start if state.is_waiting else None,
        time_limit_seconds=minutes * 60 if minutes is not None else None,
        restarts=small_number(job.get("restart_cnt")) or 0,
        script=text(job.get("command")),
        working_directory=text(job.get("current_working_directory")),
    )
    array, task = number(job.get("array_job_id")), number(job.get("array_task_id"))
    return _each_task(record, array, task, text(job.get("array_task_string")))


def of_accounting(jobs: Iterable[Any]) -> Look:
    """Return the last attempt of each job; see sacct.last_attempts."""
    look = _look(jobs, _accounting_records)
    return replace(look, records=last_attempts(look.records))


def usage_of(jobs: Iterable[Any]) -> dict[str, Usage]:
    """Return what the last attempt of each job has used, by id; without what cannot be read."""
    found: dict[str, tuple[float, Usage]] = {}
    for job in jobs:
        try:
            submitted = number(_at(job, "time", "submission")) or 0
            ids, used = [record.job_id for record in _accounting_records(job)], _usage(job)
        except NOT_AS_DOCUMENTED:
            continue
        for job_id in ids:
            if job_id not in found or submitted >= found[job_id][0]:
                found[job_id] = (submitted, used)
    return {job_id: used for job_id, (_, used) in found.items()}


def _id(job: Json) -> str:
    """Return the id. Raises ValueError."""
    job_id = parse_job_id(text(job.get("job_id")))
    if job_id is None:
        raise ValueError(f"job_id: {job.get('job_id')}")
    return job_id


def _state(value: Any) -> tuple[JobState, str]:
    """Return the state, which may be one of the future. Raises ValueError for none."""
    state, raw = job_state(value)
    if not raw.strip():
        raise ValueError(f"state: {value}")
    return state, raw


def _canceller(job: Json) -> int | None:
    """Return the uid of who cancelled a job; of names, only that of root is known here."""
    who = text(job.get("kill_request_user"))
    return 0 if who == "root" else integer(who)


def _accounting_records(job: Json) -> list[JobRecord]:
    state, raw_state = _state(_at(job, "state", "current"))
    code, signal = _end(job, state) if state.is_final else (None, None)
    minutes = number(_at(job, "time", "limit"))
    record = JobRecord(
        job_id=_id(job),
        state=state,
        source="slurmdbd",
        raw_state=raw_state,
        name=text(job.get("name")),
        comment=parse_text(text(_at(job, "comment", "job"))),
        # Of an ended job, accounting has the reason why it last waited.
        reason="" if state.is_final else parse_text(text(_at(job, "state", "reason"))),
        partition=text(job.get("partition")),
        nodes=parse_text(text(job.get("nodes")).replace("None assigned", "")),
        exit_code=code,
        signal=signal,
        submit_time=moment(_at(job, "time", "submission")),
        start_time=moment(_at(job, "time", "start")),
        end_time=moment(_at(job, "time", "end")),
        time_limit_seconds=minutes * 60 if minutes is not None else None,
        script=script_in(text(job.get("submit_line"))),
        working_directory=text(job.get("working_directory")),
        cancelled_by=_canceller(job) if state is JobState.CANCELLED else None,
    )
    array = number(_at(job, "array", "job_id"))
    task = number(_at(job, "array", "task_id"))
    waiting = _at(job, "array", "task")
    return _each_task(record, array, task, text(waiting))


def _end(job: Json, state: JobState) -> tuple[int | None, int | None]:
    """Return exit code and signal; of a job that failed, 22.05 sends no code but 0 (SUCCESS)."""
    end = exit_code(job.get("exit_code"))
    return (None, None) if state is JobState.FAILED and end == (0, None) else end


def _each_task(
    record: JobRecord, array: int | None, task: int | None, waiting: str
) -> list[JobRecord]:
    """Name a record by its task; a record of tasks that wait (``3-9%2``) is one for each."""
    if not array:
        return [record]
    if task is not None and not waiting:
        return [replace(record, job_id=task_id(str(array), task))]
    if not waiting:
        return [record]
    ids = parse_job_ids(f"{array}_[{waiting.strip('[]')}]")
    if not ids:  # slurmrestd cuts the list at 64 characters, unless its SLURM_BITSTR_LEN is 0
        raise ValueError(f"tasks: {waiting}")
    return [replace(record, job_id=each) for each in ids]


def _usage(job: Json) -> Usage:
    steps = [step for step in job.get("steps") or [] if isinstance(step, Mapping)]
    allocated = _tres(_at(job, "tres", "allocated"))
    requested = _tres(_at(job, "tres", "requested"))
    memory = requested.get("mem")
    # Of the job as a whole, 22.05 sends zero.
    cpu_time = _cpu_seconds(job) or sum(_cpu_seconds(step) for step in steps)
    largest = [_tres(_at(step, "tres", "requested", "max")) for step in steps]
    total = [_tres(_at(step, "tres", "requested", "total")) for step in steps]
    return Usage(
        elapsed_seconds=number(_at(job, "time", "elapsed")),
        allocated_cpus=allocated.get("cpu"),
        # Without a jobacct_gather plugin nothing is gathered, which is sent as zero.
        cpu_seconds=cpu_time or None,
        requested_memory_bytes=memory << 20 if memory else None,
        max_rss_bytes=max((step.get("mem", 0) for step in largest), default=0) or None,
        nodes=allocated.get("node"),
        gpus=allocated.get("gres/gpu") or None,
        gpu_utilization=_largest("gres/gpuutil", [*largest, *total]),
        gpu_memory_bytes=_largest("gres/gpumem", largest),
        billing=allocated.get("billing"),
        # Without a plugin that measures energy, accounting has none in what was allocated.
        energy_joules=allocated.get("energy") or None,
    )


def _largest(name: str, steps: Iterable[Mapping[str, int]]) -> int | None:
    return max((step[name] for step in steps if name in step), default=None)


def _cpu_seconds(content: Json) -> float:
    total = _at(content, "time", "total")
    return (number(_at(total, "seconds")) or 0) + (number(_at(total, "microseconds")) or 0) / 1e6


def _tres(entries: Any) -> dict[str, int]:
    """Return counts by name (``gres/gpu``): the largest where there are several of a name."""
    found: dict[str, int] = {}
    for entry in entries or []:
        kind, name, count = entry.get("type"), entry.get("name"), number(entry.get("count"))
        key = f"{kind}/{name}" if name else str(kind)
        if count is not None and count >= 0:
            found[key] = max(count, found.get(key, 0))
    return found


def _at(content: Any, *keys: str) -> Any:
    """Return what is below these keys; None where one of them is missing."""
    for key in keys:
        if not isinstance(content, Mapping):
            return None
        content = content.get(key)
    return content
