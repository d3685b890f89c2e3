"""Which agents are there: who polled or sent a heartbeat, and when.

A lease has an owner: ``agent:ID`` for an agent that sends ``X-Hpc-Agent-Id`` with its polls, else
``token:ID``, since the stock agent's poll does not say who it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

LEASE_SECONDS = 120.0
"""Agents send a heartbeat each 30 s."""


def owner_of(agent_id: str | None, token_id: str) -> str:
    return f"agent:{agent_id}" if agent_id else f"token:{token_id}"


class AgentPresence:
    """Last signs of life by lease owner; a fresh process gives every owner the benefit of doubt."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._seen: dict[str, float] = {}
        self._untold: set[str] = set()

    def saw_poll(self, owner: str) -> None:
        self._saw(owner)

    def saw_heartbeat(self, agent_id: str, token_id: str) -> None:
        self._saw(owner_of(agent_id, token_id))
        self._saw(owner_of(None, token_id))

    def is_alive(self, owner: str) -> bool:
        seen = max(self._seen.get(owner, self._started), self._started)
        return self._clock() - seen < LEASE_SECONDS

    def any_alive(self) -> bool:
        """Whether some agent was seen lately."""
        now = self._clock()
        return any(now - seen < LEASE_SECONDS for seen in list(self._seen.values()))

    def take_untold(self) -> dict[str, float]:
        """Return for how long each owner has not been seen, if seen since the last call."""
        untold, self._untold = self._untold, set()
        now = self._clock()
        return {owner: now - self._seen[owner] for owner in tuple(untold)}

    def hear(self, ages: Mapping[str, float]) -> None:
        """Learn of agents that other gateways saw, and how long ago."""
        now = self._clock()
        for owner, age in ages.items():
            seen = min(now - age, now)
            if seen > self._seen.get(owner, float("-inf")):
                self._seen[owner] = seen

    def _saw(self, owner: str) -> None:
        self._seen[owner] = self._clock()
        self._untold.add(owner)

    @staticmethod
    def names_itself(owner: str) -> bool:
        return owner.startswith("agent:")
