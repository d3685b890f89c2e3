"""scontrol(1): one job in full, and whether the controller answers."""

from __future__ import annotations

import re

from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import duration_or_none, parse_exit_code, parse_text, parse_time

# Name and comment are free text: they may hold spaces, newlines and things that look like fields.
# Each is found by the fields that Slurm prints around it; the rest are single words.
_NAME = re.compile(
    r"\bJobName=(.*?) UserId=\S+\(\d+\) GroupId=\S+\(\d+\) MCS_label=\S+ Priority=\d+ ", re.DOTALL
)
_COMMENT = re.compile(
    r" Comment=(.*?)\s+(?:StdErr|StdIn|StdOut|AdminComment|SystemComment|Power|TresPerNode)=",
    re.DOTALL,
)
_WORD = r"{}=(\S*)"


def show_arguments(job_id: str) -> list[str]:
    """Build the query for one job."""
    return ["scontrol", "show", "job", "--oneliner", job_id]


def config_arguments() -> list[str]:
    """Build the question for the controller's configuration."""
    return ["scontrol", "show", "config"]


def parse_max_array_size(stdout: str) -> int:
    """Return how many tasks an array may have: indices are below MaxArraySize (slurm.conf(5)).

    The number of tasks may have a bound of its own, SchedulerParameters=max_array_tasks.
    """
    sizes = [
        int(size)
        for pattern in (r"^MaxArraySize\s*=\s*(\d+)", r"\bmax_array_tasks=(\d+)")
        for size in re.findall(pattern, stdout, re.MULTILINE)
    ]
    return min(sizes, default=0)


def parse_cli_filters(stdout: str) -> str:
    """Return the plugins that run inside sbatch (``CliFilterPlugins``), "" without any."""
    match = re.search(r"^CliFilterPlugins\s*=\s*(\S+)", stdout, re.MULTILINE)
    return parse_text(match[1]) if match else ""


def ping_arguments() -> list[str]:
    """Build the question whether a controller answers."""
    return ["scontrol", "ping"]


def is_up(stdout: str) -> bool:
    """Whether any controller is up: ``Slurmctld(primary) at head is UP``."""
    return any(line.strip().endswith(" is UP") for line in stdout.splitlines())


def parse_job(stdout: str) -> JobRecord | None:
    """Read one job; None when the text holds none."""
    name = _NAME.search(stdout)
    head = re.match(r"\s*JobId=(\d+)(?: ArrayJobId=(\d+) ArrayTaskId=(\S+))? ", stdout)
    if name is None or head is None:
        return None
    fields = stdout[name.end() :]
    raw_state = _word(fields, "JobState")
    state = JobState.parse(raw_state)
    exit_code, signal = (
        parse_exit_code(_word(fields, "ExitCode")) if state.is_final else (None,) * 2
    )
    start = parse_time(_word(fields, "StartTime"))
    restarts = _word(fields, "Restarts")
    comment = _COMMENT.search(fields)
    return JobRecord(
        job_id=f"{head[2]}_{head[3]}" if head[2] else head[1],
        state=state,
        source="scontrol",
        raw_state=raw_state,
        name=name[1],
        comment=parse_text(comment[1]) if comment else "",
        reason=parse_text(_word(fields, "Reason")),
        partition=_word(fields, "Partition"),
        nodes=parse_text(_word(fields, " NodeList")),
        exit_code=exit_code,
        signal=signal,
        submit_time=parse_time(_word(fields, "SubmitTime")),
        start_time=None if state.is_waiting else start,
        end_time=parse_time(_word(fields, "EndTime")) if state.is_final else None,
        expected_start=start if state.is_waiting else None,
        time_limit_seconds=duration_or_none(_word(fields, "TimeLimit")),
        restarts=int(restarts) if restarts.isdigit() else 0,
    )


def _word(fields: str, key: str) -> str:
    match = re.search(_WORD.format(re.escape(key)), fields)
    return match[1] if match else ""
