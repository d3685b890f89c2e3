"""What descends from this process: also what has left its process group, as daemons do.

As a subreaper (prctl(2)) this process becomes the parent of whatever its parent has left behind,
and so can end it with the job. Slurm does so where it tracks processes by cgroup, and nobody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from typing import Dict, List, Optional

from .journal import log

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_SECONDS = 0.02
# What the kernel does not let go (a mute file system) is not waited for.
_PATIENCE_SECONDS = 5.0


def adopt_orphans() -> None:
    """Become the parent of descendants whose parents end before them (Linux 3.4)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(child: int) -> None:
    """Collect the adopted that have ended; ``child`` is somebody else's to wait for."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == child:
                return
            os.waitpid(ended.si_pid, 0)


def end_descendants(child: int) -> None:
    """Kill all that descends from this process; its ``child`` is somebody else's to wait for."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    told = False
    while True:
        left = descendants()
        reap_orphans(child)
        if not left:
            return
        if not told:
            told = True
            log("killing %d processes that were left behind" % len(left))
        if time.monotonic() > deadline:
            log("%d processes cannot be killed" % len(left))
            return
        for pid in left:
            with contextlib.suppress(OSError):  # it has just ended, or is another user's
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def descendants(of: Optional[int] = None) -> List[int]:
    """Return the processes whose ancestor is that one (this one without a word), but for those that
    have ended (proc(5))."""
    children: Dict[int, List[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = _living_parent(name)
            if parent is not None:
                children.setdefault(parent, []).append(int(name))
    found: List[int] = []
    look_at = [of or os.getpid()]
    while look_at:
        of_one = children.get(look_at.pop(), [])
        found += of_one
        look_at += of_one
    return found


def _living_parent(pid: str) -> Optional[int]:
    try:
        with open("/proc/%s/stat" % pid, "rb") as file:
            # The command's name is in brackets, and may hold some itself.
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in (b"Z", b"X") else int(parent)
