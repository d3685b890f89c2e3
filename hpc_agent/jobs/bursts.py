"""How many jobs that are alike are submitted at once, and when.

A job that is alone goes at once. Where several wait already, one is on its way or more launches
have been received, a fifth of a second lets the rest of the burst come in. Jobs that come one after
the other, as Dagster's own queue launches them, are a stream: from the third on they gather for a
second. What the scheduler says to that is remembered: a submit limit halves the next array, and an
array that is refused is tried as single jobs.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

from hpc_agent.store.submissions import Alike

GATHER_SECONDS = 0.2
STREAM_GATHER_SECONDS = 1.0
# So many submissions of one likeness, within so many seconds, make a stream.
_STREAM_SUBMISSIONS = 2
_STREAM_SECONDS = 2.0
# Of one likeness; while so many are on their way, the others gather.
AT_ONCE = 4
# An array of so many that goes through ends the caution that a submit limit has called for.
_PLENTY = 500
# An sbatch that has said nothing for so long is no reason for others like it to wait.
_HUNG_SECONDS = 5.0
_REMEMBERED_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class _Standing:
    """What the scheduler has said of one likeness; ``refusal`` is what it said to an array.

    ``begun`` are the times of its last submissions, ``on_their_way`` when those began that have no
    answer yet. Until ``held_until`` nothing is tried. ``used_at`` is when it was last asked for.
    """

    allowed: int | None = None
    refusal: str | None = None
    one_by_one: bool = False
    held_until: float = 0.0
    used_at: float = 0.0
    begun: deque[float] = field(default_factory=lambda: deque(maxlen=_STREAM_SUBMISSIONS))
    on_their_way: dict[int, float] = field(default_factory=dict)

    def matters(self, now: float) -> bool:
        """Whether it is unlike one that is made anew."""
        if self.on_their_way or now < self.held_until:
            return True
        if self.begun and now - self.begun[-1] < _STREAM_SECONDS:
            return True
        has_been_told = self.allowed is not None or self.refusal is not None or self.one_by_one
        return has_been_told and now - self.used_at < _REMEMBERED_SECONDS


class Bursts:
    """Remembers, for each likeness, what the scheduler takes."""

    def __init__(self) -> None:
        self._standings: dict[str, _Standing] = {}
        self._tickets = itertools.count()

    def size(self, likeness: str, largest: int) -> int:
        """Return how many jobs the next submission may hold; ``largest`` is the longest array."""
        standing = self._of(likeness)
        if standing.one_by_one or standing.refusal is not None:
            return 1
        return max(min(largest, standing.allowed or largest), 1)

    def wait(self, due: Alike, *, more_coming: bool, largest: int, now: float) -> float | None:
        """Return the seconds until the next submission; None for after one that is on its way.

        ``more_coming`` says that more launches have been received than have become workers.
        """
        standing, size = self._of(due.likeness), self.size(due.likeness, largest)
        standing.used_at = now
        if now < standing.held_until:
            return standing.held_until - now
        on_their_way = sum(now - at < _HUNG_SECONDS for at in standing.on_their_way.values())
        is_probing = standing.allowed is not None or standing.refusal is not None
        if on_their_way >= (1 if is_probing else AT_ONCE):
            return None
        is_stream = self.is_stream(due.likeness, now)
        is_alone = due.count == 1 and not on_their_way and not more_coming and not is_stream
        if size == 1 or due.count >= size or is_alone:
            return 0.0
        gather_seconds = STREAM_GATHER_SECONDS if is_stream else GATHER_SECONDS
        return max(due.oldest + gather_seconds - now, 0.0)

    def begun(self, likeness: str, now: float) -> int:
        """A submission of a likeness begins; return its number for ``ended``."""
        standing, ticket = self._of(likeness), next(self._tickets)
        standing.begun.append(now)
        standing.on_their_way[ticket] = now
        return ticket

    def ended(self, likeness: str, ticket: int) -> None:
        """A submission has its answer."""
        self._of(likeness).on_their_way.pop(ticket, None)

    def hold(self, likeness: str, until: float) -> None:
        """Try nothing of a likeness until then."""
        self._of(likeness).held_until = until

    def __len__(self) -> int:
        return len(self._standings)

    def forget_old(self, now: float) -> None:
        """Forget what was said of likenesses that have not been asked for in a day.

        Most have nothing said of them, and there may be one for each run: these go at once.
        """
        self._standings = {
            likeness: standing
            for likeness, standing in self._standings.items()
            if standing.matters(now)
        }

    def is_stream(self, likeness: str, now: float) -> bool:
        """Whether jobs of a likeness have been coming one after the other just now."""
        begun = self._of(likeness).begun
        return len(begun) == _STREAM_SUBMISSIONS and now - begun[0] < _STREAM_SECONDS

    def accepted(self, likeness: str, size: int) -> None:
        """The scheduler took so many: after a limit, the next time twice as many."""
        standing = self._of(likeness)
        if standing.refusal is not None:
            standing.refusal, standing.one_by_one = None, True
        if standing.allowed is not None:
            standing.allowed = size * 2 if size < _PLENTY else None

    def limited(self, likeness: str, size: int) -> None:
        """A submit limit is reached with so many: the next time half as many."""
        self._of(likeness).allowed = max(size // 2, 1)

    def array_refused(self, likeness: str, words: str) -> None:
        """An array was refused; whether it is for being one, a single job will show."""
        self._of(likeness).refusal = words

    def job_refused(self, likeness: str, words: str) -> bool:
        """Return whether a single job's refusal is that of all its like.

        It is when their array was refused in the same words.
        """
        standing = self._of(likeness)
        if standing.refusal is None:
            return False
        is_for_all, standing.refusal = standing.refusal == words, None
        standing.one_by_one = not is_for_all
        return is_for_all

    def _of(self, likeness: str) -> _Standing:
        return self._standings.setdefault(likeness, _Standing())
