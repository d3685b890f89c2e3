"""A limit on the memory of the child where no scheduler sets one."""

from __future__ import annotations

import os
from typing import Optional

LOOK_SECONDS = 2.0
_MIB = 1 << 20


class MemoryLimit:
    """Adds up what a process group has resident. Raises nothing: what is gone uses nothing."""

    def __init__(self, limit_mb: int, group: int) -> None:
        self._limit = limit_mb * _MIB
        self._group = group
        self.verdict: Optional[str] = None
        """What was found when the limit was exceeded, in words."""

    def is_exceeded(self) -> bool:
        """Whether the group holds more than the limit at this moment."""
        used = sum(_resident(pid) for pid in _members(self._group))
        if used > self._limit:
            self.verdict = "it used %d MiB of memory, and its limit is %d MiB" % (
                used // _MIB,
                self._limit // _MIB,
            )
        return self.verdict is not None


def _members(group: int) -> "list[int]":
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.getpgid(int(name)) == group:
                    found.append(int(name))
            except OSError:
                continue
    return found


def _resident(pid: int) -> int:
    """Return the bytes that a process does not share with others (proc(5), statm)."""
    try:
        with open("/proc/%d/statm" % pid, encoding="ascii") as file:
            _, resident, shared = file.read().split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
