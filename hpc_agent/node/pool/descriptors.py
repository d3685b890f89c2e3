"""The descriptors that a process has open."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Collection, Dict, Sequence

_OWN = "/proc/self/fd"


def opened() -> Dict[int, str]:
    """Return what is open, with what each is."""
    found = {}
    for name in os.listdir(_OWN):
        with contextlib.suppress(OSError):  # that of the listing itself
            found[int(name)] = os.readlink(os.path.join(_OWN, name))
    return found


def take_over(output: Sequence[int], kept: Collection[int] = ()) -> None:
    """Have nothing as standard input, print into two descriptors, and close all but ``kept``."""
    null = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate([null, *output[:2]]):
        os.dup2(descriptor, number)
    close_all_but(kept)


def close_all_but(kept: Collection[int]) -> None:
    """Close what a forked process has of its parent, but for standard streams and ``kept``."""
    for number in opened():
        if number > 2 and number not in kept:
            os.close(number)


def can_be_shared(descriptor: int) -> bool:
    """Whether processes can have it in common: devices, and files that are only appended to.

    Others have a position, or an order of bytes, that one process would change for the next.
    """
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return True  # closed meanwhile
    if stat.S_ISREG(mode):
        with open("/proc/self/fdinfo/%d" % descriptor) as file:
            flags = next(line.split()[1] for line in file if line.startswith("flags:"))
        return bool(int(flags, 8) & os.O_APPEND)
    return stat.S_ISCHR(mode) or stat.S_ISDIR(mode)
