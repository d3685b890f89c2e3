"""How often partitions are asked for, and what is taken while Slurm does not answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from hpc_agent.cluster.partition_book import GOOD_FOR_SECONDS, PartitionBook
from hpc_agent.errors import SchedulerError, SchedulerUnavailableError
from hpc_agent.slurm.partition_facts import PartitionFacts
from tests.agent.conftest import Clock

FACTS = PartitionFacts(user="jane", partitions=(), nodes=())


@dataclass(slots=True)
class Site:
    """Partitions that a test changes; ``asked`` counts."""

    asked: int = 0
    error: SchedulerError | None = None

    async def partition_facts(self) -> PartitionFacts:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return replace(FACTS, user=f"jane {self.asked}")


async def test_a_burst_of_runs_asks_once() -> None:
    """Whoever comes while Slurm is asked takes the same answer."""
    site, clock = Site(), Clock()
    book = PartitionBook(site, clock)
    found = await asyncio.gather(*(book.facts() for _ in range(1000)))
    assert (site.asked, len(set(map(id, found)))) == (1, 1)
    clock.now += GOOD_FOR_SECONDS - 1
    await book.facts()
    assert site.asked == 1
    clock.now += 2
    await book.facts()
    assert site.asked == 2


async def test_old_answer_does_while_slurm_is_away() -> None:
    """For a day; partitions change rarely."""
    site, clock = Site(), Clock()
    book = PartitionBook(site, clock)
    first = await book.facts()
    site.error = SchedulerUnavailableError("scontrol: no answer")
    clock.now += GOOD_FOR_SECONDS + 1
    assert await book.facts() is first
    assert await book.facts() is first
    assert site.asked == 2
    clock.now += 25 * 3600
    with pytest.raises(SchedulerUnavailableError):
        await book.facts()


async def test_without_any_answer_a_launch_waits() -> None:
    """The error comes back, and is no refusal."""
    book = PartitionBook(Site(error=SchedulerUnavailableError("no answer")), Clock())
    with pytest.raises(SchedulerUnavailableError):
        await book.facts()
