"""The node program's own log: lines on stdout, which Slurm writes to ``slurm.out``."""

from __future__ import annotations

import sys
import threading
import time

_lock = threading.Lock()


def log(message: str) -> None:
    """Write one line with a UTC time stamp; never pass a token."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with _lock:
        sys.stdout.write("%s hpc-agent node: %s\n" % (stamp, message))
        sys.stdout.flush()
