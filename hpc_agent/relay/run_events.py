"""How many event writes of a run have gone through, so that a run worker hears of its steps'."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

_RUNS_AT_MOST = 10_000


@dataclass(slots=True)
class _Count:
    total: int = 0
    own: dict[str, int] = field(default_factory=dict)


class RunEvents:
    """Counts the writes of runs that somebody follows; ``ring`` is told of each."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def wrote(self, run_id: str | None, key: str) -> None:
        """A job has written events of a run, and the control plane has them."""
        count = self._counts.get(run_id or "")
        if count is None:
            return
        count.total += 1
        if key in count.own:
            count.own[key] += 1
        if len(count.own) > (key in count.own):
            self._ring()

    def by_others(self, run_id: str, key: str) -> int:
        """Return how many writes were another job's; from now on those of this run are counted."""
        count = self._counts.setdefault(run_id, _Count())
        self._counts.move_to_end(run_id)
        if len(self._counts) > _RUNS_AT_MOST:
            self._counts.popitem(last=False)
        return count.total - count.own.setdefault(key, 0)
