"""Signals, waited for instead of handled: the main thread learns of them where it can act."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
from typing import Iterable, Optional

# SIGUSR1 is the walltime warning (sbatch --signal=B:USR1@60): time to end in good order.
TERMINATING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_WAITED = (*TERMINATING, signal.SIGCONT, signal.SIGCHLD, signal.SIGIO)
_SFD_CLOEXEC = os.O_CLOEXEC  # signalfd(2)
_SIGSET_WORDS = 16  # sigset_t has 1,024 bits
_LONGEST_WAIT = 3600.0  # poll(2) takes milliseconds as an int

_first: Optional[int] = None
_pending = select.poll()


def block() -> None:
    """Block the signals that ``wait`` returns; call it before the first thread starts.

    A forked process that calls it waits for its own, and knows nothing of what came before.
    """
    global _first, _pending
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    _first, _pending = None, select.poll()
    _pending.register(_signalfd(), select.POLLIN)


def unblock() -> None:
    """Undo ``block``, for a child between fork and exec."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED)


def watch(descriptor: int) -> None:
    """Have ``wait`` return SIGIO when something can be read there (fcntl(2), O_ASYNC)."""
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)


def wait(seconds: float) -> Optional[int]:
    """Return the next signal's number, or None after that many seconds at most."""
    global _first  # noqa: PLW0603
    if not _pending.poll(min(max(0.0, seconds), _LONGEST_WAIT) * 1000):
        return None
    # The poll leaves it pending, and it is noted before it is taken.
    pending = signal.sigpending().intersection(_WAITED)
    _first = _first or _lowest(pending)
    received = signal.sigtimedwait(pending, 0)
    return received.si_signo if received is not None else None


def first_terminating() -> Optional[str]:
    """Return the name of the signal that ends this job, though nobody has waited for it yet.

    It is the first that ``wait`` has returned, or will return. Safe for all threads.
    """
    # In this order: what is pending no more has been noted before.
    pending = signal.sigpending()
    number = _first or _lowest(pending)
    return signal.Signals(number).name if number is not None else None


def _lowest(pending: Iterable[int]) -> Optional[int]:
    """Return the terminating signal that the kernel hands out first."""
    return min(set(pending).intersection(TERMINATING), default=None)


def _signalfd() -> int:
    words = (ctypes.c_ulong * _SIGSET_WORDS)()
    for number in _WAITED:
        words[0] |= 1 << (number - 1)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.signalfd(-1, ctypes.byref(words), _SFD_CLOEXEC))
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return descriptor
