"""Run a program that the kernel kills when the process that started it is gone.

    python die_with_parent.py PARENT_PID PROGRAM [ARGUMENT …]

Run by its path, so that it imports nothing of ours. After ``kill -9`` of a control plane its
webserver would keep the port, and its daemon would tick beside the next one. PR_SET_PDEATHSIG
(prctl(2)) survives the exec below and is not inherited: what the program itself starts is its own
business; dagster-webserver and dagster-daemon work in threads. The signal is SIGKILL, since
nobody is left to insist.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, argv: list[str]) -> None:
    """Become the program, or exit with a message."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL)) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the call
        sys.exit("the process that started this one is gone")
    os.execvp(argv[0], argv)  # noqa: S606 no shell is the point


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
