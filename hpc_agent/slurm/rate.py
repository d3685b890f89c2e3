"""One token bucket for all Slurm commands together.

Sites enable ``rl_enable`` (slurm.conf(5), SlurmctldParameters): a burst of 30 requests per user and
2 more each second. Staying below it here is cheaper than being told to back off there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from hpc_agent.slurm.commands import CommandResult, CommandRunner


class TokenBucket:
    """Hands out tokens in the order in which they are asked for."""

    def __init__(
        self,
        *,
        burst: int = 30,
        per_second: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._tokens = float(burst)
        self._filled_at = clock()

    async def take(self) -> None:
        """Take one token, waiting for it if need be."""
        now = self._clock()
        earned = (now - self._filled_at) * self._per_second
        self._tokens = min(float(self._burst), self._tokens + earned)
        self._filled_at = now
        # A negative count is the queue: each waiter owns the token that comes when its wait ends.
        self._tokens -= 1
        if self._tokens < 0:
            await self._sleep(-self._tokens / self._per_second)


class LimitedRunner:
    """A command runner that takes a token before each command."""

    def __init__(self, runner: CommandRunner, bucket: TokenBucket) -> None:
        self._runner = runner
        self._bucket = bucket

    async def run(
        self, argv: Sequence[str], *, environment: Mapping[str, str], timeout_seconds: float
    ) -> CommandResult:
        """Wait for a token, then run; the wait is not part of the deadline."""
        await self._bucket.take()
        return await self._runner.run(
            argv, environment=environment, timeout_seconds=timeout_seconds
        )
