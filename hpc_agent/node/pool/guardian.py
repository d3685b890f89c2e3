"""The parent of one worker: it passes signals on, and ends whatever descends from the worker.

It is forked in the user's Python, serves one connection, which is the slot program's, and ends when
that does. A worker that has not ended by then is killed, with all its descendants.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import traceback
from typing import Callable, List, Optional

from .. import signals
from ..child import usage_of_children
from ..descendants import adopt_orphans, end_descendants, reap_orphans
from .messages import Closed, Message, receive, receive_now, send

# Starts the worker of an order, printing into two descriptors; returns its process. Raises OSError.
StartWorker = Callable[[Message, List[int]], int]

_LONG = 3600.0


def guard(connection: socket.socket, start: StartWorker) -> None:
    """Start the worker that the other side orders, and see it through to its end."""
    adopt_orphans()
    signals.block()
    try:
        send(connection, {"hello": os.getpid()})
        order, output = receive(connection)
        worker = _started(connection, start, order, output)
        if worker is not None:
            _Guard(connection, worker).see_through()
    except Closed:
        return


def _started(
    connection: socket.socket, start: StartWorker, order: Message, output: List[int]
) -> Optional[int]:
    try:
        if order["directory"]:
            os.chdir(order["directory"])
        worker = start(order, output)
    except OSError as error:
        send(connection, {"errno": error.errno, "words": str(error)})
        return None
    finally:
        for descriptor in output:
            os.close(descriptor)
    send(connection, {"pid": worker})
    return worker


class _Guard:
    def __init__(self, connection: socket.socket, worker: int) -> None:
        self._connection = connection
        self._worker = worker

    def see_through(self) -> None:
        """Return when the worker and all its descendants have ended."""
        signals.watch(self._connection.fileno())
        try:
            while not self._has_ended():
                self._follow()
                signals.wait(_LONG)
        except Closed:
            self._end_all()
            return
        # The group can be signalled as long as its leader, the worker, is not waited for.
        self._end_all()
        _, status = os.waitpid(self._worker, 0)
        used = usage_of_children()
        ended = {"max_rss_kb": used.max_rss_kb, "cpu_seconds": used.cpu_seconds}
        send(self._connection, {"status": _exit_status(status), **ended})

    def _has_ended(self) -> bool:
        reap_orphans(self._worker)
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._worker, options) is not None

    def _follow(self) -> None:
        """Do what the other side has asked for. Raises Closed."""
        while True:
            asked = receive_now(self._connection)
            if asked is None:
                return
            if asked.get("end"):
                self._end_all()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if "signal" in asked:
                    os.kill(self._worker, asked["signal"])
                elif "group" in asked:
                    os.killpg(self._worker, asked["group"])

    def _end_all(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._worker, signal.SIGKILL)
        end_descendants(self._worker)


def end_with(work: Callable[[], None]) -> None:
    """Run the work of a forked process and end it, whatever happens."""
    try:
        work()
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _exit_status(status: int) -> int:
    """Return the exit code, or minus the signal: os.waitstatus_to_exitcode of Python 3.9."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
