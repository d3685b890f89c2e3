"""What squeue and sacct would print of jobs that a test makes up, in the order of their fields."""

from __future__ import annotations

from datetime import UTC, datetime

from hpc_agent.slurm import sacct, squeue
from hpc_agent.slurm.values import FIELD, RECORD

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SQUEUE = {
    "JobArrayID": "17",
    "State": "RUNNING",
    "exit_code": "0",
    "restartcnt": "0",
    "Partition": "debug",
    "TimeLimit": "5:00",
    "SubmitTime": "1700000000",
    "StartTime": "1700000001",
    "EndTime": "1700000301",
    "NodeList": "c1",
    "Reason": "None",
    "Command": "/work/jobs/run-1/job.sh",
    "WorkDir": "/work/jobs/run-1",
    "Name": "hpc-agent:run-1",
    "Comment": "run-1",
}
_SACCT = {
    "JobID": "17",
    "State": "COMPLETED",
    "ExitCode": "0:0",
    "Submit": "1700000000",
    "Start": "1700000001",
    "End": "1700000009",
    "TimelimitRaw": "5",
    "Partition": "debug",
    "NodeList": "c1",
    "Reason": "None",
    "WorkDir": "/work/jobs/run-1",
    "SubmitLine": "sbatch --parsable /work/jobs/run-1/job.sh",
    "JobName": "hpc-agent:run-1",
    "Comment": "run-1",
    "JobIDRaw": "17",
}
assert any(all(f"{field}:0" in word for field in _SQUEUE) for word in squeue.arguments())


def squeue_text(*jobs: dict[str, str]) -> str:
    """Return the header, and a record of each job: what it says is its own, the rest is usual."""
    rows = [[field.upper() for field in _SQUEUE]]
    rows[0][0] = "JOBID"
    rows += [list({**_SQUEUE, **job}.values()) for job in jobs]
    return "".join(f"{FIELD.join(row)}{RECORD}\n" for row in rows)


def sacct_text(*jobs: dict[str, str]) -> str:
    """Return the header and a line, or several, of each job."""
    argv = sacct.arguments(None, since=_EPOCH)
    assert f"--format={','.join(_SACCT)}" in argv
    rows = [list(_SACCT), *(list({**_SACCT, **job}.values()) for job in jobs)]
    return "".join(f"{FIELD.join(row)}\n" for row in rows)


def shell(text: str) -> str:
    """Return a line of a shell script that prints a text."""
    return "printf '%s' " + "'" + text.replace("'", "'\\''") + "'"
