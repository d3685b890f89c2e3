"""How long an allocation is to stay: why it takes nothing more and ends."""

from __future__ import annotations

import signal
import time
from typing import Optional

from .messages import Message
from .work import REFUSED, WAS_LEAVING

# The agent may have forgotten an allocation for a moment only, as when it starts.
_REFUSED_SECONDS = 60.0
# For telling the agent of the end, whether it answers or not.
_FAREWELL_SECONDS = 5.0


class Stay:
    """Collects what speaks against it; what was decided stays so."""

    def __init__(self, idle_seconds: float) -> None:
        """Stay without a member for that long; 0 is for ever."""
        self._idle_seconds = idle_seconds
        self._idle_since = time.monotonic()
        self._refused_since: Optional[float] = None
        self._over_since = 0.0
        self._is_told = False
        self.reason = ""
        """Why it ends, "" as long as it does not."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be taken."""
        return bool(self.reason)

    @property
    def may_end(self) -> bool:
        """Whether the agent knows that it is over, or has had the time to."""
        waited = time.monotonic() - self._over_since
        return self.is_over and (self._is_told or waited > _FAREWELL_SECONDS)

    def note_signal(self, number: int) -> None:
        """Leave on a signal: the walltime warning, or whoever ends the job."""
        self._leave("ended on %s" % signal.Signals(number).name)

    def note_answer(self, answer: Message) -> None:
        """Note what the agent has answered."""
        if answer.get(REFUSED):
            self._refused_since = self._refused_since or time.monotonic()
            return
        self._refused_since = None
        self._is_told = bool(answer.get(WAS_LEAVING))
        if "idle_seconds" in answer:
            self._idle_seconds = float(answer["idle_seconds"])
        if answer.get("is_leaving"):
            self._leave("the agent has ended the allocation")

    def look(self, is_busy: bool) -> None:
        """Look at the clock; ``is_busy`` is whether there is a member."""
        now = time.monotonic()
        if is_busy:
            self._idle_since = now
        if 0 < self._idle_seconds < now - self._idle_since:
            self._leave("it had no member for %g s" % self._idle_seconds)
        if self._refused_since is not None and now - self._refused_since > _REFUSED_SECONDS:
            self._leave("the agent does not know the allocation any more")

    def _leave(self, reason: str) -> None:
        if not self.is_over:
            self.reason = reason
            self._over_since = time.monotonic()
