"""scontrol(1): one job in full, and whether the controller answers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hpc_agent.slurm.printed import unreadable
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import (
    duration_or_none,
    integer,
    parse_exit_code,
    parse_text,
    parse_time,
)

# Name and comment are free text: they may hold spaces, newlines and things that look like fields.
# Each is found by the fields that Slurm prints around it; the rest are single words, but for the
# user and the group: those of a directory service have spaces (``DOMAIN\\domain users(1000)``).
_HEAD = re.compile(r"^JobId=(\d{1,18})(?: ArrayJobId=(\d{1,18}) ArrayTaskId=(\S+))? ", re.MULTILINE)
_NAME = re.compile(
    r"\bJobName=(.*?) UserId=[^=]*\(\d+\) GroupId=[^=]*\(\d+\) MCS_label=[^=]* Priority=\d+ ",
    re.DOTALL,
)
_SETTING = re.compile(r"^(\w+)\s*= (.*)$", re.MULTILINE)
_CONTROLLER = re.compile(r"^Slurmctld\(\S+\) at .* (?P<state>UP|DOWN)\s*$", re.MULTILINE)
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


def settings(stdout: str) -> Mapping[str, str]:
    """Read the configuration, which is printed in alphabetical order.

    Raises SchedulerUnreadableError when it is none, or has no end.
    """
    found = {name: value.strip() for name, value in _SETTING.findall(stdout)}
    if "ClusterName" not in found or "SLURM_VERSION" not in found:
        raise unreadable("scontrol", stdout)
    return found


def parse_max_array_size(stdout: str) -> int:
    """Return how many tasks an array may have: indices are below MaxArraySize (slurm.conf(5)).

    The number of tasks may have a bound of its own, SchedulerParameters=max_array_tasks. Raises
    SchedulerUnreadableError.
    """
    found = settings(stdout)
    size = integer(found.get("MaxArraySize", ""))
    if size is None:
        raise unreadable("scontrol", stdout)
    bounds = re.findall(r"\bmax_array_tasks=(\d{1,9})", found.get("SchedulerParameters", ""))
    return min([size, *map(int, bounds)])


def parse_cli_filters(stdout: str) -> str:
    """Return the plugins that run inside sbatch (``CliFilterPlugins``), "" without any.

    Raises SchedulerUnreadableError.
    """
    return parse_text(settings(stdout).get("CliFilterPlugins", ""))


def ping_arguments() -> list[str]:
    """Build the question whether a controller answers."""
    return ["scontrol", "ping"]


def is_up(stdout: str) -> bool:
    """Whether any controller is up: ``Slurmctld(primary) at head is UP``.

    Raises SchedulerUnreadableError when it says so of none, neither up nor down.
    """
    states = _CONTROLLER.findall(stdout)
    if not states:
        raise unreadable("scontrol ping", stdout)
    return "UP" in states


def parse_job(stdout: str) -> JobRecord | None:
    """Read one job; None when the text holds none."""
    name = _NAME.search(stdout)
    head = _HEAD.search(stdout)
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
        restarts=integer(restarts) or 0,
        script=_word(fields, " Command"),
        working_directory=_word(fields, " WorkDir"),
    )


def _word(fields: str, key: str) -> str:
    match = re.search(_WORD.format(re.escape(key)), fields)
    return match[1] if match else ""
