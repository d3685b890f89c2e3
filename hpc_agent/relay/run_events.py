"""Who follows a run: its run worker hears of its steps' jobs, and of what they write."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from hpc_agent.relay.broadcast import Broadcast

_RUNS_AT_MOST = 10_000
_START = 1 << 30


@dataclass(slots=True)
class _Followed:
    # Not from 0: who has followed it before a restart of the agent is to see a difference.
    total: int = field(default_factory=lambda: secrets.randbelow(_START))
    own: dict[str, int] = field(default_factory=dict)
    bell: Broadcast = field(default_factory=Broadcast)


class RunEvents:
    """Counts the event writes of runs that somebody follows, and wakes who does."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, _Followed] = OrderedDict()

    def wrote(self, run_id: str | None, key: str) -> None:
        """A job has written events of a run, and the control plane has them."""
        run = self._runs.get(run_id or "")
        if run is None:
            return
        run.total += 1
        if key in run.own:
            run.own[key] += 1
        if len(run.own) > (key in run.own):
            run.bell.ring()

    def ring(self, run_id: str) -> None:
        """Wake who follows a run, if somebody does."""
        if (run := self._runs.get(run_id)) is not None:
            run.bell.ring()

    def bell(self, run_id: str) -> Broadcast:
        """Return the bell of a run; from now on its events are counted."""
        return self._followed(run_id).bell

    def by_others(self, run_id: str, key: str) -> int:
        """Return how many writes were another job's."""
        run = self._followed(run_id)
        return run.total - run.own.setdefault(key, 0)

    def _followed(self, run_id: str) -> _Followed:
        run = self._runs.setdefault(run_id, _Followed())
        self._runs.move_to_end(run_id)
        if len(self._runs) > _RUNS_AT_MOST:
            self._runs.popitem(last=False)
        return run
