"""The partitions loop: what is free in each partition, for people who look.

It tells nothing that a run depends on, so it may be old, and a question without an answer is no
trouble.
"""

from __future__ import annotations

import logging

from hpc_agent.agent.context import Context
from hpc_agent.errors import SchedulerError
from hpc_agent.store import partition_use

log = logging.getLogger(__name__)


class PartitionsLoop:
    """Asks Slurm once for all partitions, every so many seconds, and writes the answer down."""

    def __init__(self, context: Context, *, every_seconds: float) -> None:
        self._context = context
        self._every_seconds = every_seconds

    async def step(self) -> float:
        """Look once."""
        context = self._context
        try:
            partitions = await context.scheduler.partitions()
        except SchedulerError as error:
            log.info("what is free in the partitions is not known: %s", error)
            return self._every_seconds
        now = context.wall()
        await context.store.run(lambda db: partition_use.keep_free(db, partitions, now))
        return self._every_seconds
