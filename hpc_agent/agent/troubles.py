"""What is not going well at the moment: for whoever asks how the agent stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_LONGEST = 500


class Troubles:
    """What each loop cannot do, in its own words, and since when (seconds since the epoch)."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._of_loops: dict[str, tuple[str, float]] = {}

    def note(self, loop: str, words: str) -> None:
        """Keep what a loop says; since when it does stays as it is."""
        _, since = self._of_loops.get(loop, ("", self._wall()))
        self._of_loops[loop] = words[:_LONGEST], since

    def works(self, loop: str) -> None:
        """Forget what a loop has said: it works again."""
        self._of_loops.pop(loop, None)

    def rows(self) -> list[dict[str, Any]]:
        """Return them, the oldest first."""
        rows = [
            {"loop": loop, "words": words, "since": since}
            for loop, (words, since) in self._of_loops.items()
        ]
        return sorted(rows, key=lambda row: row["since"])
