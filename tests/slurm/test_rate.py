"""The token bucket, on a clock of its own."""

from __future__ import annotations

import asyncio

from hpc_agent.slurm.rate import TokenBucket


class Clock:
    """A clock that moves when someone sleeps or a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def read(self) -> float:
        """Return the time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Remember how long, without moving the clock."""
        self.sleeps.append(seconds)


async def test_a_burst_is_free_and_the_rest_waits_in_order() -> None:
    """After the burst each token comes half a second after the one before."""
    clock = Clock()
    bucket = TokenBucket(burst=3, per_second=2, clock=clock.read, sleep=clock.sleep)
    for _ in range(6):
        await bucket.take()
    assert clock.sleeps == [0.5, 1.0, 1.5]


async def test_tokens_come_back_with_time_but_not_above_the_burst() -> None:
    """A long pause earns one burst."""
    clock = Clock()
    bucket = TokenBucket(burst=3, per_second=2, clock=clock.read, sleep=clock.sleep)
    await asyncio.gather(*(bucket.take() for _ in range(4)))
    clock.now = 1000.0
    await asyncio.gather(*(bucket.take() for _ in range(4)))
    assert clock.sleeps == [0.5, 0.5]
