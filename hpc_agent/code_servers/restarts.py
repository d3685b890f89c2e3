"""Restarts: how soon a code server that failed is tried again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection

from hpc_agent.store.code_servers import CodeServer

_WAITS = (1.0, 5.0, 30.0, 120.0, 300.0)

Edition = tuple[str, str, str]


class Restarts:
    """Counts failures of each edition: a deployment, a location, and its version."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: Counter[Edition] = Counter()
        self._due_at: dict[Edition, float] = {}

    def failed(self, server: CodeServer) -> None:
        """Delay the next start a little more with each failure in a row."""
        edition = edition_of(server)
        wait = _WAITS[min(self._failures[edition], len(_WAITS) - 1)]
        self._failures[edition] += 1
        self._due_at[edition] = self._clock() + wait

    def never(self, server: CodeServer) -> None:
        """A new start would fail in the same way: the next version gets one."""
        self._due_at[edition_of(server)] = math.inf

    def forget(self, server: CodeServer) -> None:
        """Let the next start of this edition be a first one."""
        self._failures.pop(edition_of(server), None)
        self._due_at.pop(edition_of(server), None)

    def __len__(self) -> int:
        return len(self._due_at)

    def keep(self, editions: Collection[Edition]) -> None:
        """Forget the editions of code locations that are gone, and of earlier versions."""
        for edition in [each for each in self._due_at if each not in editions]:
            self._failures.pop(edition, None)
            del self._due_at[edition]

    def due(self, edition: Edition) -> bool:
        """Whether a server may be started."""
        return self._clock() >= self._due_at.get(edition, 0.0)


def edition_of(server: CodeServer) -> Edition:
    """Return which edition a server serves."""
    return server.deployment, server.location, server.version
