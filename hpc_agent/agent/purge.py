"""What nobody needs any more: records of what is over, its directories, and those of nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from hpc_agent.agent.adopt import find_unknown
from hpc_agent.agent.context import Context
from hpc_agent.isolation import for_each
from hpc_agent.steps.planning import STEP_KEY_PREFIX
from hpc_agent.store import inbox, workers

# A directory is made before its worker is written down: one look alone proves nothing.
_LOOK_AGAIN_SECONDS = 3.0
# That of a step by its run: it may be filled long before the run asks for the job.
_STEP_IS_ASKED_FOR_SECONDS = 3600.0


async def purge_workers(context: Context, *, before: float) -> int:
    """Forget workers concluded before then, by the agent's clock, with their directories."""
    count = 0
    # Some at a time: after a busy month others have their turn in between.
    while forgotten := await context.store.run(lambda db: workers.purge(db, before)):
        await _remove(context, forgotten)
        count += len(forgotten)
    return count


async def purge_requests(context: Context, *, before: float) -> None:
    """Forget requests answered before then, by the time of day."""
    while await context.store.run(lambda db: inbox.purge(db, before)):
        pass


async def collect_garbage(context: Context, *, older_than_seconds: float, dry_run: bool) -> str:
    """Remove what is over for so long, and job directories of nobody; return what that was.

    With ``dry_run`` nothing is removed. While jobs are in the queue that nobody knows, directories
    of nobody may be theirs, and stay. Raises SchedulerError.
    """
    before = context.clock() - older_than_seconds
    unknown = await find_unknown(context)
    strays = set() if unknown else await _strays(context)
    left = (
        f"; those of nobody stay while {len(unknown)} unknown jobs are in the queue "
        "(`hpc-agent adopt`)"
        if unknown
        else ""
    )
    if dry_run:
        count = await context.store.run(lambda db: workers.count_forgettable(db, before))
        return f"would remove {count} jobs with their directories, {len(strays)} of nobody{left}"
    count = await purge_workers(context, before=before)
    await _remove(context, strays)
    return f"removed {count} jobs with their directories, {len(strays)} of nobody{left}"


async def _strays(context: Context) -> set[str]:
    """Return the job directories that belong to no worker, nor to an array of some."""
    first = await _unknown(context)
    if not first:
        return first
    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    left = first & await _unknown(context)
    return left - await asyncio.to_thread(_to_be_asked_for, context, left)


def _to_be_asked_for(context: Context, keys: Iterable[str]) -> set[str]:
    """Return the directories that runs have made of late for jobs of steps."""
    work, since = context.preparation.work, context.wall() - _STEP_IS_ASKED_FOR_SECONDS
    young = set()
    for key in keys:
        with suppress(FileNotFoundError):
            if key.startswith(STEP_KEY_PREFIX) and work.files.modified(work.jobs / key) > since:
                young.add(key)
    return young


async def _unknown(context: Context) -> set[str]:
    work = context.preparation.work
    there = set(await asyncio.to_thread(work.files.names, work.jobs))
    return there - await context.store.run(workers.keys)


async def _remove(context: Context, keys: Iterable[str]) -> None:
    async def remove(key: str) -> None:
        await asyncio.to_thread(context.preparation.work.remove, key)

    await for_each("purge", list(keys), remove, name=str)
