"""What is known of the cluster's partitions, asked for rarely and not for each run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hpc_agent.config import AgentConfig
from hpc_agent.errors import SchedulerError
from hpc_agent.slurm.partition_facts import KnowsPartitions, PartitionFacts
from hpc_agent.slurm.scheduler import Scheduler

log = logging.getLogger(__name__)

GOOD_FOR_SECONDS = 600.0
"""Five commands each time: half a command a minute."""
_AT_WORST_SECONDS = 24 * 3600.0
# A command that gets no answer takes a minute, and launches wait for it.
_AGAIN_AFTER_SECONDS = 60.0


class PartitionBook:
    """Keeps the last answer; whoever comes while it is asked for waits for the same one."""

    def __init__(self, scheduler: KnowsPartitions, clock: Callable[[], float]) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._asking = asyncio.Lock()
        self._facts: PartitionFacts | None = None
        self._at = 0.0
        self._failed_at = float("-inf")

    async def facts(self, *, good_for_seconds: float = GOOD_FOR_SECONDS) -> PartitionFacts:
        """Return what is not older than that, or than a day while Slurm does not answer.

        Raises SchedulerError when nothing is known.
        """
        async with self._asking:
            now = self._clock()
            age, failed_ago = now - self._at, now - self._failed_at
            is_good = age < good_for_seconds or failed_ago < _AGAIN_AFTER_SECONDS
            if self._facts is not None and is_good:
                return self._facts
            try:
                self._facts = await self._scheduler.partition_facts()
            except SchedulerError as error:
                if self._facts is None or age > _AT_WORST_SECONDS:
                    raise
                self._failed_at = self._clock()
                log.info("partitions are taken as they were %.0f s ago: %s", age, error)
            else:
                self._at = self._clock()
            return self._facts


def partition_book(
    config: AgentConfig, scheduler: Scheduler, clock: Callable[[], float]
) -> PartitionBook | None:
    """Return what partitions are chosen from; None where none is, as without Slurm."""
    if not config.runs.choose_partition or config.scheduler.kind != "slurm":
        return None
    if not isinstance(scheduler, KnowsPartitions):
        return None
    return PartitionBook(scheduler, clock)
