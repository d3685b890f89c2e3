"""Two clocks: one that waits are measured by, and one that tells what time it is.

An administrator or NTP may set the time of day back or forth by an hour. No job waits an hour
longer for that, and no server is an hour late.
"""

from __future__ import annotations

import time
from datetime import timedelta


class SteadyClock:
    """Seconds since the epoch as at the process's start, and from then on without steps."""

    def __init__(self) -> None:
        self._difference = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Return the steady time."""
        return time.monotonic() + self._difference

    def ahead(self) -> timedelta:
        """Return by how much it is ahead of the time of day: what a step backward has left."""
        seconds = self() - time.time()
        return timedelta(seconds=seconds) if abs(seconds) >= 1.0 else timedelta()
