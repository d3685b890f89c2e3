"""The child process: its start, its end, its process group."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import time
from typing import Callable, Dict, Optional, Sequence

from . import signals
from .descendants import adopt_orphans, end_descendants, reap_orphans
from .journal import log
from .memory import LOOK_SECONDS, MemoryLimit

_PR_SET_PDEATHSIG = 1  # prctl(2)


class Child:
    """A process in a group of its own."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Dict[str, str],
        cwd: Optional[str],
        output: Sequence[int],
        nice: int = 0,
    ) -> None:
        """Start it, printing into two descriptors. Raises OSError.

        The program must have one thread only: this uses preexec_fn.
        """
        adopt_orphans()
        self._process = subprocess.Popen(
            list(argv),
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output[0],
            stderr=output[1],
            preexec_fn=before_exec(nice),  # noqa: PLW1509  (one thread, see above)
        )
        self.pid = self._process.pid

    def poll(self) -> Optional[int]:
        """Return the exit status (negative: the signal), None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask the child alone to end: Dagster's executors end their own children in good order."""
        self._process.send_signal(signal.SIGTERM)

    def signal_group(self, number: int) -> None:
        """Send a signal to whatever is left of the process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def supervise(
    child: Child,
    grace_seconds: float,
    memory: Optional[MemoryLimit] = None,
    leave_open_on: Sequence[str] = (),
) -> Optional[int]:
    """Wait for the child's end, passing signals on; return the signal that asked us to end it.

    A run worker closes its run on SIGTERM, and a closed run cannot go on in another attempt: on the
    signals of ``leave_open_on`` (``SIGTERM``) the child is killed outright instead.
    After SIGTERM the child has ``grace_seconds``; then SIGKILL goes to its whole group. A child
    that exceeds its memory limit is ended as well, and the limit says so.
    """
    asked: Optional[int] = None
    deadline: Optional[float] = None
    pause = 3600.0 if memory is None else LOOK_SECONDS
    while child.poll() is None:
        remaining = pause if deadline is None else min(pause, deadline - time.monotonic())
        if remaining <= 0:
            log("the child outlived its %g s of grace: killing its process group" % grace_seconds)
            child.signal_group(signal.SIGKILL)
            deadline = None
            continue
        received = signals.wait(remaining)
        reap_orphans(child.pid)
        if memory is not None and deadline is None and memory.is_exceeded():
            log("terminating the child: %s" % memory.verdict)
            deadline = time.monotonic() + grace_seconds
            child.terminate()
        if received == signal.SIGCONT:
            child.signal_group(signal.SIGCONT)
        elif received in signals.TERMINATING and asked is None:
            name = signal.Signals(received).name
            asked = received
            if name in leave_open_on:
                log("received %s: killing the child, another attempt goes on" % name)
                child.signal_group(signal.SIGKILL)
                continue
            deadline = time.monotonic() + grace_seconds
            log("received %s: terminating the child" % name)
            child.terminate()
    child.signal_group(signal.SIGKILL)
    end_descendants(child.pid)
    return asked


def max_rss_kb() -> int:
    """Return the largest resident set of any waited-for descendant (getrusage(2)), in KiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def cpu_seconds() -> float:
    """Return the user and system time of all waited-for descendants (getrusage(2))."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def before_exec(nice: int = 0) -> Callable[[], None]:
    """Return what a child does between fork and exec: a group of its own, and death with us."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def prepare() -> None:
        os.setpgid(0, 0)
        os.nice(nice)
        signals.unblock()
        # Without this the child would outlive a node program that is killed by SIGKILL.
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
