"""The housekeeping loop: the lease, old records, old job directories."""

from __future__ import annotations

import json

from hpc_agent.agent.context import Context
from hpc_agent.agent.purge import purge_requests, purge_workers
from hpc_agent.store import inbox, meta, workers

_LEASE_INTERVAL_SECONDS = meta.LEASE_SECONDS / 4
_PURGE_INTERVAL_SECONDS = 3600.0
_ERRORS_TOLD = 5


class HousekeepingLoop:
    """Keeps the lease, and the state database small.

    Raises LeaseHeldError, which ends the agent, when another one has its home.
    """

    def __init__(self, context: Context, owner: str) -> None:
        self._context = context
        self._owner = owner
        self._purge_at = 0.0
        self._told = ""

    async def step(self) -> float:
        """Renew the lease; once an hour forget what is old."""
        context = self._context
        wall = context.wall()  # others compare the lease with their own time of day
        await context.store.run(lambda db: meta.renew_lease(db, self._owner, wall))
        await self._tell()
        now = context.clock()
        if now >= self._purge_at:
            self._purge_at = now + _PURGE_INTERVAL_SECONDS
            await purge_requests(context, before=now - inbox.KEEP_ANSWERED_SECONDS)
            await purge_workers(context, before=now - workers.KEEP_CONCLUDED_SECONDS)
        return _LEASE_INTERVAL_SECONDS

    async def _tell(self) -> None:
        """Let commands read what is not going well."""
        context = self._context
        words = json.dumps(
            {"now": context.troubles.rows(), "errors": context.errors.rows(_ERRORS_TOLD)}
        )
        if words != self._told:
            await context.store.run(lambda db: meta.put(db, meta.TROUBLES, words))
            self._told = words
