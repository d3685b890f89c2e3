"""Which streams are held back, until when, and since when a message is in doubt. Pure but a clock.

Each stream that failed waits by itself. When several fail and none gets through between them, the
control plane is away: then one message at a time is tried, so that it is not run over.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hpc_agent.outgoing.queue import Waiting
from hpc_agent.outgoing.verdict import Fate, Verdict

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# So many streams that fail one after the other are no fault of theirs.
_AWAY_AFTER = 3
# A stream that is forgotten is tried at once: harmless, while a table that only grows is not.
_MOST_HELD = 10_000
# News cut a pause short, but not to less than this after the last attempt.
_SHORTEST_PAUSE = 2.0


@dataclass(slots=True)
class _Pause:
    """Doubling waits after failures."""

    failures: int = 0
    tried_at: float = 0.0
    until: float = 0.0
    may_be_cut: bool = True

    def fail(self, now: float, verdict: Verdict, *, at_most: float = _LONGEST_PAUSE) -> None:
        at_least = verdict.retry_after
        wait = min(_FIRST_PAUSE * 2 ** min(self.failures, 16), _LONGEST_PAUSE)
        wait = max(min(wait * random.uniform(0.5, 1.0), at_most), at_least)  # noqa: S311  (jitter)
        self.failures += 1
        self.tried_at, self.until = now, now + wait
        # An error is no sooner over for news; who asked to be left alone is left alone.
        self.may_be_cut = verdict.fate is Fate.LATER and not at_least

    def cut(self) -> None:
        if self.may_be_cut:
            self.until = min(self.until, self.tried_at + _SHORTEST_PAUSE)


@dataclass(slots=True)
class _Held:
    """A stream that waits, and what is known of the message at its head."""

    message: tuple[int, str] | None = None
    pause: _Pause = field(default_factory=_Pause)
    doubted: float = 0.0
    doubted_at: float | None = None
    taken: int = 0
    words: str = ""
    known: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Doubt:
    """For how many seconds a message has been in doubt, and whether that is so now.

    ``is_news``: its last failure had other words.
    """

    seconds: float
    in_doubt: bool
    is_news: bool


class Holds:
    """Streams that wait for their next attempt."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._failing: set[str] = set()
        self._taken = 0
        self._all = _Pause()

    @property
    def is_away(self) -> bool:
        """Whether nothing gets through, whichever stream it is of."""
        return len(self._failing) >= _AWAY_AFTER

    def __len__(self) -> int:
        return len(self._held)

    def may_send(self, stream: str) -> bool:
        """Whether a stream's turn has come."""
        held = self._held.get(stream)
        return held is None or held.pause.until <= self._clock()

    def may_try_any(self) -> bool:
        """Whether anything may be sent, as far as an absence of the control plane goes."""
        return not self.is_away or self._all.until <= self._clock()

    def next_due(self, looked_at: float) -> float | None:
        """Return in how many seconds the first pause ends, None when nothing is held.

        Pauses that were over at the last look are of streams that have nothing to send any more.
        """
        now = self._clock()
        if self.is_away and self._all.until > now:
            return self._all.until - now
        ends = [held.pause.until for held in self._held.values() if held.pause.until > looked_at]
        return max(min(ends) - now, 0.0) if ends else None

    def works(self, stream: str) -> None:
        """Something of a stream was settled: its pause is over, and so is an absence."""
        was_away = self.is_away
        self._failing.clear()
        self._all = _Pause()
        self._held.pop(stream, None)
        if was_away:
            self.hurry()

    def hurry(self) -> None:
        """Cut pauses short: something says that the control plane may be back."""
        self._all.cut()
        for held in self._held.values():
            held.pause.cut()

    def taken(self) -> None:
        """The control plane has taken a message, of whichever stream."""
        self._taken += 1

    def hold(self, waiting: Waiting, verdict: Verdict, *, patience: float) -> Doubt:
        """Let a stream wait; return how its message stands.

        Only what lies between two doubtful answers counts: while the control plane is away or the
        agent is down the clock stands still. An answer that does not come, or is not the control
        plane's, is doubtful when others have been taken since the last attempt.
        """
        now = self._clock()
        held = self._of(waiting)
        is_news = held.words != verdict.words
        held.words = verdict.words
        held.doubted = max(held.doubted, waiting.doubted)
        others_went = held.pause.failures > 0 and held.taken != self._taken
        held.taken = self._taken
        in_doubt = verdict.fate is Fate.DOUBT or (verdict.is_suspect and others_went)
        if in_doubt and held.doubted_at is not None:
            held.doubted += now - held.doubted_at
        held.doubted_at = now if in_doubt else None
        left = max(patience - held.doubted, 0.05) if in_doubt else _LONGEST_PAUSE
        held.pause.fail(now, verdict, at_most=left)
        if len(self._failing) < _AWAY_AFTER:
            self._failing.add(waiting.stream)
        if self.is_away:
            self._all.fail(now, verdict)
        return Doubt(held.doubted, in_doubt=in_doubt, is_news=is_news)

    def know(self, waiting: Waiting, verdict: Verdict) -> None:
        """Keep a verdict that could not be noted in the queue: the message is not sent again."""
        self._of(waiting).known = verdict

    def known(self, waiting: Waiting) -> Verdict | None:
        """Return the verdict that is known of a message already."""
        held = self._held.get(waiting.stream)
        return held.known if held and held.message == (waiting.id, waiting.key) else None

    def _of(self, waiting: Waiting) -> _Held:
        """Return the state of a stream's head, the youngest in the table."""
        held = self._held.pop(waiting.stream, None)
        if held is None or held.message != (waiting.id, waiting.key):
            held = _Held(message=(waiting.id, waiting.key))
        self._held[waiting.stream] = held
        if len(self._held) > _MOST_HELD:
            del self._held[next(iter(self._held))]
        return held
