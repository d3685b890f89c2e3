"""A bell for many: whoever waits is woken."""

from __future__ import annotations

import asyncio


class Broadcast:
    """Wakes all that wait; ``count`` says how often it was rung, so that no ring is missed."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake all that wait."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seen: int, seconds: float) -> None:
        """Wait until it is rung more often than ``seen``, at most so long."""
        if self.count > seen:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass
