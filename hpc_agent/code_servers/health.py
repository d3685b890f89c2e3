"""Health: a code server that lives but does not answer is found by its unanswered pings.

Slurm sees only that its job runs. The stock agent takes no notice of it either: an unanswered ping
ends in DEADLINE_EXCEEDED, which ``_check_server_health`` (user_code_launcher.py) does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from hpc_agent.code_servers.channels import Channels
from hpc_agent.errors import CodeServerError, CodeServerUnavailableError

_INTERVAL_SECONDS = 20.0
_PING_SECONDS = 10.0
# In a row: one that was lost while the agent itself stood still proves nothing.
_MISSED_PINGS = 3


@dataclass(slots=True)
class _Pulse:
    answers: int = 0
    missed: int = 0
    silent_since: float = 0.0


class Health:
    """Pings servers, and remembers since when each has been silent."""

    def __init__(
        self, channels: Channels, *, patience_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._channels = channels
        self._patience = patience_seconds
        self._clock = clock
        self._pulses: dict[str, _Pulse] = {}
        self.interval_seconds = min(_INTERVAL_SECONDS, patience_seconds / _MISSED_PINGS)

    def keep(self, keys: Collection[str]) -> None:
        """Forget all servers but these."""
        self._pulses = {key: pulse for key, pulse in self._pulses.items() if key in keys}

    async def check(self, key: str) -> float | None:
        """Return for how many seconds a server has been silent, once that is too long.

        A server that has answered any call since the last check is not pinged.
        """
        asked_at = self._clock()
        pulse = self._pulses.setdefault(key, _Pulse())
        if not await self._answers(key, pulse):
            if not pulse.missed:
                pulse.silent_since = asked_at
            pulse.missed += 1
        else:
            pulse.missed = 0
        silent = self._clock() - pulse.silent_since
        is_too_long = pulse.missed >= _MISSED_PINGS and silent >= self._patience
        return silent if is_too_long else None

    async def _answers(self, key: str, pulse: _Pulse) -> bool:
        client = self._channels.client(key)
        if client.answers == pulse.answers:
            try:
                await client.ping(deadline_seconds=min(_PING_SECONDS, self.interval_seconds))
            except CodeServerUnavailableError:
                return False
            except CodeServerError:
                pass  # an error is an answer
        pulse.answers = client.answers
        return True
