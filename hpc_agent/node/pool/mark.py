"""The mark by which others know whose a forked process is: its job in ``/proc/PID/environ``.

The kernel shows there what a process was started with. A template is started with a variable that
has room for a mark, and a worker writes into that: ``--stacks`` finds it as it finds other jobs'.
"""

from __future__ import annotations

import ctypes
from typing import Dict

_VARIABLE = "HPC_AGENT_JOB_TOKEN"
_ROOM = "." * 200


def room() -> Dict[str, str]:
    """Return the variable with which a template is to be started, to be unset by it."""
    return {_VARIABLE: _ROOM}


def leave_mark(environment: Dict[str, str]) -> None:
    """Write the job of an environment, its token's first word, where the room is, if there is."""
    key = environment.get(_VARIABLE, "").partition(":")[0]
    with open("/proc/self/stat", "rb") as file:
        # proc(5): the command's name is field 2, the environment's addresses are 50 and 51.
        start, end = map(int, file.read().rpartition(b")")[2].split()[47:49])
    place = ctypes.string_at(start, end - start).find(("%s=%s" % (_VARIABLE, _ROOM)).encode())
    mark = ("%s:" % key).encode()
    if place >= 0 and len(mark) <= len(_ROOM):
        ctypes.memmove(start + place + len(_VARIABLE) + 1, mark, len(mark))
