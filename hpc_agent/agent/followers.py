"""The followers loop: run workers that follow their steps hear that one of them has moved on."""

from __future__ import annotations

import asyncio

from hpc_agent.agent.context import Context
from hpc_agent.relay.run_events import RunEvents
from hpc_agent.store import steps

_IDLE_SECONDS = 60.0
# What follows a change at once is told with it.
_GATHER_SECONDS = 0.05


class FollowersLoop:
    """Asks once for all runs which of them have steps that changed, and wakes who follows those."""

    def __init__(self, context: Context, run_events: RunEvents) -> None:
        self._context = context
        self._run_events = run_events
        self._change: int | None = None

    async def step(self) -> float:
        """Wake whom it concerns."""
        store, change = self._context.store, self._change
        if change is None:
            self._change = await store.run(steps.last_change)
            return _IDLE_SECONDS
        self._change, runs = await store.run(lambda db: steps.runs_changed_since(db, change))
        for run_id in runs:
            self._run_events.ring(run_id)
        await asyncio.sleep(_GATHER_SECONDS)
        return _IDLE_SECONDS
