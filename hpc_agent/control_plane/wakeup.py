"""A wake-up call that many tasks may wait for and any thread may give."""

from __future__ import annotations

import asyncio


class WakeUp:
    """Wakes all waiting tasks at once; a task that comes later waits for the next call."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def call(self) -> None:
        """Wake the waiting tasks, from any thread."""
        self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 a poll interval, not a deadline
        """Wait for the next call and tell whether it came within ``timeout`` seconds."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout)
        except TimeoutError:
            return False
        return True
