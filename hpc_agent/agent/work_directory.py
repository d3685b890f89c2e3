"""The work directory loop: whether it is this agent's still.

A loop of its own: a shared file system that hangs must not keep the lease from being renewed.
"""

from __future__ import annotations

import asyncio

from hpc_agent.agent.context import Context
from hpc_agent.cluster.work_directory_owner import check_owner

_INTERVAL_SECONDS = 15.0


class WorkDirectoryLoop:
    """Looks whose the directory is. Raises LeaseHeldError, which ends the agent."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def step(self) -> float:
        """Look once."""
        context = self._context
        await asyncio.to_thread(check_owner, context.preparation.work, context.agent_id)
        return _INTERVAL_SECONDS
