"""The child process: its start, its end, and whatever descends from it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Protocol, Sequence

from . import signals
from .descendants import adopt_orphans, descendants, end_descendants, reap_orphans
from .journal import log
from .limits import Limits

_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Usage:
    """What a child and its descendants have used (getrusage(2))."""

    max_rss_kb: int = 0
    cpu_seconds: float = 0.0


class Child(Protocol):
    """A process of a job, however it was started."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> Optional[int]:
        """Return the exit status (negative: the signal), None while it runs."""

    def terminate(self) -> None:
        """Ask the child alone to end: Dagster's executors end their own children in good order."""

    def signal_group(self, number: int) -> None:
        """Send a signal to whatever is left of the process group."""

    def end_all(self) -> None:
        """Kill the group, and whatever else descends from the child."""

    def family(self) -> List[int]:
        """Return the child's process, if it runs, and all that descends from it."""

    def usage(self) -> Usage:
        """Return what was used, once the child has ended."""


# Starts a command: its words, environment, directory (None: this one), two descriptors to print
# into, and nice value. Raises OSError and ValueError.
StartChild = Callable[[Sequence[str], Dict[str, str], Optional[str], Sequence[int], int], Child]


class ExecChild(Child):
    """A program that was executed, in a process group of its own."""

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

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> Optional[int]:
        status = self._process.poll()
        reap_orphans(self.pid)
        return status

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def end_all(self) -> None:
        self.signal_group(signal.SIGKILL)
        end_descendants(self.pid)

    def family(self) -> List[int]:
        return descendants()

    def usage(self) -> Usage:
        return usage_of_children()


def supervise(
    child: Child,
    grace_seconds: float,
    limits: Limits,
    leave_open_on: Sequence[str] = (),
    warning_seconds: Optional[float] = None,
) -> Optional[int]:
    """Wait for the child's end, passing signals on; return the signal that asked us to end it.

    A run worker closes its run on SIGTERM, and a closed run cannot go on in another attempt: on the
    signals of ``leave_open_on`` (``SIGTERM``) the child is killed outright instead.
    After SIGTERM the child has ``grace_seconds``; then SIGKILL goes to its whole group. After the
    walltime warning it has ``warning_seconds``, where they are given: that much is left of its
    time. A child that exceeds a limit is ended as well, and the limits say so.
    """
    asked: Optional[int] = None
    deadline: Optional[float] = None
    pause = limits.look_seconds if limits.are_set else 3600.0
    while child.poll() is None:
        remaining = pause if deadline is None else min(pause, deadline - time.monotonic())
        if remaining <= 0:
            log("the child outlived its time to end: killing its process group")
            child.signal_group(signal.SIGKILL)
            deadline = None
            continue
        received = signals.wait(remaining)
        if deadline is None and limits.are_exceeded(child.family):
            deadline = time.monotonic() + grace_seconds
            _end(child, limits)
        if received == signal.SIGCONT:
            child.signal_group(signal.SIGCONT)
        elif received not in signals.TERMINATING:
            continue
        elif asked is None:
            name = signal.Signals(received).name
            asked = received
            if name in leave_open_on:
                log("received %s: killing the child, another attempt goes on" % name)
                child.signal_group(signal.SIGKILL)
                continue
            left = warning_seconds if received == signal.SIGUSR1 else None
            deadline = time.monotonic() + max(grace_seconds, left or 0.0)
            log("received %s: terminating the child" % name)
            child.terminate()
        elif received != asked and deadline is not None:
            # Whoever ends it in the time that the warning has left it does not wait for all that.
            deadline = min(deadline, time.monotonic() + grace_seconds)
    child.end_all()
    return asked


def _end(child: Child, limits: Limits) -> None:
    if limits.too_many:  # they multiply while one is asked
        log("killing the child and all its descendants: %s" % limits.verdict)
        child.end_all()
    else:
        log("terminating the child: %s" % limits.verdict)
        child.terminate()


def usage_of_children() -> Usage:
    """Return what all waited-for descendants of this process have used (getrusage(2))."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Usage(used.ru_maxrss, used.ru_utime + used.ru_stime)


def before_exec(nice: int = 0) -> Callable[[], None]:
    """Return what a child does between fork and exec: a group of its own, and death with us."""
    die_with = death_with(os.getpid())

    def prepare() -> None:
        os.setpgid(0, 0)
        os.nice(nice)
        signals.unblock()
        die_with()

    return prepare


def death_with(parent: int) -> Callable[[], None]:
    """Return what a child does to die with its parent; it dies at once where that has gone.

    Without this the child would outlive a node program that is killed by SIGKILL.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def die_with() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return die_with
