"""Commands that attempts of a step have left behind: they end before the next attempt's begin."""

from __future__ import annotations

import time

import dagster as dg

from dagster_hpc.jobs import JobError, JobName, JobStatus, Launcher, Phase

_LONGEST_END = 300.0
_LONGEST_WAIT = 5.0


def end_earlier(context: dg.OpExecutionContext, launcher: Launcher, job: JobName) -> None:
    """End what earlier attempts of a step have asked for, and wait for that.

    It goes on where the process of the op was killed, and both would work in one directory. Raises
    JobError when it does not end.
    """
    if job.attempt == 0:
        return
    # Asked for by name first: that is repeated while nobody answers, unlike a look at changes.
    launcher.status(JobName(job.name, job.attempt - 1))
    left = {each.job: each for each in launcher.changes(0) if _is_left(each, job)}
    if not left:
        return
    names = ", ".join(f"job {each.job_id}" for each in left.values() if each.job_id)
    context.log.info(f"the command of an earlier attempt is told to end: {names or 'it waits'}")
    launcher.cancel(list(left))
    until = time.monotonic() + _LONGEST_END
    while left:
        if time.monotonic() > until:
            raise JobError(f"the command of an earlier attempt of this step goes on: {names}")
        for status in launcher.changes(_LONGEST_WAIT):
            if status.job in left and status.phase is Phase.ENDED:
                del left[status.job]


def _is_left(status: JobStatus, job: JobName) -> bool:
    stem, _, _ = job.name.rpartition(".command-")
    is_of_step = status.job.name.startswith(f"{stem}.command-")
    return is_of_step and status.job.attempt < job.attempt and status.phase is not Phase.ENDED
