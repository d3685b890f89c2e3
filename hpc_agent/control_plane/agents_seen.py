"""What is known of the agents: whether one is there, and when one was last heard of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hpc_agent.control_plane.presence import AgentPresence
from hpc_agent.control_plane.store.agents import Agent, Agents


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsSeen:
    """``last`` is the agent whose heartbeat came last; None: there was never one."""

    is_any_alive: bool
    last: Agent | None

    @property
    def is_any_known(self) -> bool:
        """Whether some agent has ever been here."""
        return self.is_any_alive or self.last is not None

    @property
    def last_heartbeat(self) -> str:
        """Return for example ``the last heartbeat, of agent hpc1, came at …``."""
        if self.last is None:
            return "no heartbeat has come yet"
        name = self.last.label or self.last.agent_id
        return f"the last heartbeat, of agent {name}, came at {moment(self.last.heartbeat_at)}"

    def last_heartbeat_ago(self) -> str:
        """Return the same and how long ago that is: for what is read once."""
        if self.last is None:
            return self.last_heartbeat
        return f"{self.last_heartbeat}, {time.time() - self.last.heartbeat_at:.0f} s ago"


def agents_seen(agents: Agents, presence: AgentPresence) -> AgentsSeen:
    """Look; blocking."""
    known: Sequence[Agent] = agents.all()
    return AgentsSeen(is_any_alive=presence.any_alive(), last=known[-1] if known else None)


def moment(seconds: float) -> str:
    """Return a time of day as people read it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
