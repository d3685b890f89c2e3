"""The node program's own log: lines on stdout, which Slurm writes to ``slurm.out``."""

from __future__ import annotations

import contextlib
import os
import time


def log(message: str) -> None:
    """Write one line with a UTC time stamp; never pass a token. A full disk raises nothing."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = "%s hpc-agent node: %s\n" % (stamp, message)
    # Not sys.stdout: what it could not write it keeps, and fails again at exit. One write(2) to a
    # file that is appended to needs no lock.
    with contextlib.suppress(OSError):
        os.write(1, line.encode("utf-8", "backslashreplace"))
