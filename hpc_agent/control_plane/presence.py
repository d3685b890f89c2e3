"""Which agents are there: who polled or sent a heartbeat, and when.

A lease has an owner: ``agent:ID`` for an agent that sends ``X-Hpc-Agent-Id`` with its polls, else
``token:ID``, since the stock agent's poll does not say who it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

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

    def saw_poll(self, owner: str) -> None:
        self._seen[owner] = self._clock()

    def saw_heartbeat(self, agent_id: str, token_id: str) -> None:
        now = self._clock()
        self._seen[owner_of(agent_id, token_id)] = now
        self._seen[owner_of(None, token_id)] = now

    def is_alive(self, owner: str) -> bool:
        return self._clock() - self._seen.get(owner, self._started) < LEASE_SECONDS

    def any_alive(self) -> bool:
        """Whether some agent was seen lately."""
        now = self._clock()
        return any(now - seen < LEASE_SECONDS for seen in self._seen.values())

    @staticmethod
    def names_itself(owner: str) -> bool:
        return owner.startswith("agent:")
