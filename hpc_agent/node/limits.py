"""Limits of what a job's processes have together, where no scheduler sets any.

Memory is anonymous pages alone: a control group counts them once as well, besides shared memory and
files. Those that a fork has left in common are divided among the processes that have them.
"""

from __future__ import annotations

import os
import time
from typing import Callable, Iterable, Optional, Sequence

LOOK_SECONDS = 2.0
_MIB = 1 << 20
# A look at shares takes as long as the processes have pages: that much of the time at most.
_MOST_OF_TIME = 0.1

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
        self._next_shares = 0.0
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
            self._look_at_memory(members, self._memory)
        return self.verdict is not None

    def _look_at_memory(self, members: Sequence[int], limit: int) -> None:
        if sum(map(_anonymous, members)) <= limit or time.monotonic() < self._next_shares:
            return
        began = time.monotonic()
        used = sum(map(_share, members))
        ended = time.monotonic()
        self._next_shares = ended + (ended - began) / _MOST_OF_TIME
        if used > limit:
            self.out_of_memory = True
            self.verdict = "it used %d MiB of memory, and its limit is %d MiB" % (
                used // _MIB,
                limit // _MIB,
            )


def _anonymous(pid: int) -> int:
    """Return the bytes of no file that a process has, also in common with others (proc(5), statm).

    What is called shared there is files and shared memory, and not what a fork has left in common.
    """
    try:
        with open("/proc/%d/statm" % pid, encoding="ascii") as file:
            _, resident, shared = file.read().split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _share(pid: int) -> int:
    """Return the bytes of no file that a process has, each divided among those that have it."""
    try:
        with open("/proc/%d/smaps_rollup" % pid, "rb") as file:
            rollup = file.read()
    except OSError:  # before Linux 4.14, or it may not be looked into
        return _anonymous(pid)
    return share_of(rollup, _anonymous(pid))


def share_of(rollup: bytes, anonymous: int) -> int:
    """Read a share from ``smaps_rollup`` (proc(5)); ``anonymous`` is what is not divided.

    Older kernels have no ``Pss_Anon``, and tell it in one number with the share of files.
    """
    sizes = {}
    for line in rollup.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == b"kB":
            sizes[words[0]] = int(words[1]) << 10
    if b"Pss_Anon:" in sizes:
        return sizes[b"Pss_Anon:"]
    return min(anonymous, sizes.get(b"Pss:", anonymous))
