"""Wait for what schedulers do in their own time, with a generous limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from hpc_agent.slurm.scheduler import JobRecord, Scheduler
from hpc_agent.slurm.state import JobState

LIMIT_SECONDS = 60.0


async def until_state(scheduler: Scheduler, job_id: str, *states: JobState) -> JobRecord:
    """Return the job's record once it is in one of these states."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        record = await scheduler.show(job_id)
        if record.state in states:
            return record
        assert not record.state.is_final, f"ended otherwise: {record}"
        assert time.monotonic() < deadline, f"still {record}"
        await asyncio.sleep(0.1)


async def until_final(scheduler: Scheduler, job_id: str) -> JobRecord:
    """Return the job's record once it has ended."""
    return await until_state(scheduler, job_id, *(state for state in JobState if state.is_final))


async def until_text(path: Path) -> str:
    """Return the content of a file once it has one."""
    await until(lambda: path.exists() and path.stat().st_size > 0, str(path))
    return await asyncio.to_thread(path.read_text)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_SECONDS} s: {what}"
        await asyncio.sleep(0.05)
