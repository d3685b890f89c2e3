"""The housekeeping loop: the lease, old records, old job directories."""

from __future__ import annotations

import asyncio

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.isolation import for_each
from hpc_agent.store import inbox, meta, workers

_LEASE_INTERVAL_SECONDS = meta.LEASE_SECONDS / 4
_PURGE_INTERVAL_SECONDS = 3600.0


class HousekeepingLoop:
    """Keeps the lease, and the state database small. Raises LeaseHeldError without a lease."""

    def __init__(self, context: Context, owner: str) -> None:
        self._context = context
        self._owner = owner
        self._purge_at = 0.0

    async def step(self) -> float:
        """Renew the lease; once an hour forget what is old."""
        context = self._context
        now = context.clock()
        await context.store.run(lambda db: meta.renew_lease(db, self._owner, now))
        if now >= self._purge_at:
            self._purge_at = now + _PURGE_INTERVAL_SECONDS
            await self._purge(now)
        return _LEASE_INTERVAL_SECONDS

    async def _purge(self, now: float) -> None:
        def forget(db: Database) -> list[str]:
            inbox.purge(db, now)
            return workers.purge(db, now)

        async def remove(key: str) -> None:
            await asyncio.to_thread(self._context.preparation.work.remove, key)

        forgotten = await self._context.store.run(forget)
        await for_each("purge", forgotten, remove, name=str)
