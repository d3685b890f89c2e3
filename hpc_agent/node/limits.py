"""Limits of what a job's processes have together, where no scheduler sets any."""

from __future__ import annotations

import os
from typing import Callable, Iterable, Optional

LOOK_SECONDS = 2.0
_MIB = 1 << 20

Family = Callable[[], Iterable[int]]


class Limits:
    """Adds up what some processes have. Raises nothing: what is gone uses nothing."""

    def __init__(
        self,
        memory_mb: Optional[int],
        most_processes: Optional[int] = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """None is no limit; they are to be looked at every ``look_seconds``."""
        self.look_seconds = look_seconds
        self._memory = None if memory_mb is None else memory_mb * _MIB
        self._most_processes = most_processes
        self.out_of_memory = False
        self.too_many = False
        self.verdict: Optional[str] = None
        """What was found when a limit was exceeded, in words."""

    @property
    def are_set(self) -> bool:
        """Whether there is any."""
        return self._memory is not None or self._most_processes is not None

    def are_exceeded(self, family: Family) -> bool:
        """Whether the processes have more than a limit at this moment."""
        if not self.are_set:
            return False
        members = list(family())
        if self._most_processes is not None and len(members) > self._most_processes:
            self.too_many = True
            self.verdict = "it had %d processes, and its limit is %d" % (
                len(members),
                self._most_processes,
            )
            return True
        if self._memory is not None:
            self._look_at_memory(sum(map(_resident, members)), self._memory)
        return self.verdict is not None

    def _look_at_memory(self, used: int, limit: int) -> None:
        if used > limit:
            self.out_of_memory = True
            self.verdict = "it used %d MiB of memory, and its limit is %d MiB" % (
                used // _MIB,
                limit // _MIB,
            )


def _resident(pid: int) -> int:
    """Return the bytes that a process does not share with others (proc(5), statm)."""
    try:
        with open("/proc/%d/statm" % pid, encoding="ascii") as file:
            _, resident, shared = file.read().split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
