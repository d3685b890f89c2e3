"""Signals, waited for instead of handled: the main thread learns of them where it can act."""

from __future__ import annotations

import fcntl
import os
import signal
from typing import Optional

# SIGUSR1 is the walltime warning (sbatch --signal=B:USR1@60): time to end in good order.
TERMINATING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_WAITED = (*TERMINATING, signal.SIGCONT, signal.SIGCHLD, signal.SIGIO)


def block() -> None:
    """Block the signals that ``wait`` returns; call it before the first thread starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)


def unblock() -> None:
    """Undo ``block``, for a child between fork and exec."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED)


def watch(descriptor: int) -> None:
    """Have ``wait`` return SIGIO when something can be read there (fcntl(2), O_ASYNC)."""
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)


def wait(seconds: float) -> Optional[int]:
    """Return the next signal's number, or None after that many seconds."""
    received = signal.sigtimedwait(_WAITED, max(0.0, seconds))
    return received.si_signo if received is not None else None
