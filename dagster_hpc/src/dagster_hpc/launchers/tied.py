"""Executes a command that ends with the process that has started it, on Linux.

It is run by its path, so that it imports nothing: ``python -I -S tied.py PARENT COMMAND…``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Ask the kernel for SIGKILL at the parent's end, and become the command."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    # What ignores these (a shell in the background) would hand that on.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended before it could be asked
            sys.exit(128 + signal.SIGKILL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  (an argv)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
