"""A template: a process of the user's Python that has imported their code, and has workers.

``python node.pyz --template FILE``. FILE, which is removed, tells in JSON: ``link``, a socket to
the supervisor, and ``listener``, to which slot programs connect for a worker each; ``start``,
``code_origin``, ``working_directory`` and ``dagster_yaml`` as in the specification.

Of a template that can be forked comes a worker for each connection. One that cannot is a spare: it
takes one connection, and becomes its worker itself.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from functools import partial
from typing import Any, Dict, List, NoReturn, Optional

from .. import signals
from ..child import death_with
from ..spec import SPARE
from . import worker
from .guardian import end_with, guard
from .imported import Before, Imported
from .mark import room
from .messages import Closed, Message, receive, send
from .obstacles import obstacle, watched_imports
from .warming import warm

READY = "ready"
FAILED = "failed"
NOT_FORKABLE = "not_forkable"
TAKEN = "taken"
_LONGEST_WORDS = 2000
# For the exit handlers of a spare that is not wanted any more.
_END_SECONDS = 20


def run(path: str) -> int:
    """Serve as the file says until the supervisor closes its side."""
    with open(path, encoding="utf-8") as file:
        settings = json.load(file)
    os.unlink(path)
    for name in room():
        del os.environ[name]
    link = socket.socket(fileno=settings["link"])
    listener = socket.socket(fileno=settings["listener"])
    for sock in (link, listener):
        os.set_inheritable(sock.fileno(), False)
    try:
        if settings["start"] == SPARE:
            _Spare(link, listener, settings).run()
        else:
            _fork_for_each(link, listener, settings)
    except Closed:
        pass
    return 0


def _fork_for_each(link: socket.socket, listener: socket.socket, settings: Dict[str, Any]) -> None:
    before = Before()
    gc.disable()  # what is freed before the fork leaves holes in pages that workers share
    with watched_imports() as watch:
        told = _warmed(settings)
    gc.collect()
    if told["state"] == READY:
        words = obstacle(watch, before.descriptors)
        if words:
            told = {"state": NOT_FORKABLE, "words": words}
    imported = before.imported()
    gc.freeze()
    send(link, told)
    if told["state"] == READY:
        # What its imports have made is its workers': it takes nothing of that along.
        end_with(partial(_serve, link, listener, imported))


def _serve(link: socket.socket, listener: socket.socket, imported: Imported) -> None:
    """Fork a guardian for each connection."""
    # Of signals to the whole job each worker gets its own; guardians are collected by the kernel.
    signals.block()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while _is_wanted(listener, link):
        connection = _accepted(listener)
        if connection is None:
            continue
        if os.fork() == 0:
            link.close()
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            end_with(partial(guard, connection, partial(_forked, imported=imported)))
        connection.close()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _forked(order: Message, output: List[int], imported: Imported) -> int:
    """Fork a worker of this process, which is its guardian."""
    die_with = death_with(os.getpid())
    pid = os.fork()
    if pid == 0:
        die_with()
        gc.enable()
        worker.run(order, output, imported)
    return pid


class _Spare:
    """The guardian of a worker that has imported everything before there is an order for it."""

    def __init__(
        self, link: socket.socket, listener: socket.socket, settings: Dict[str, Any]
    ) -> None:
        self._link = link
        self._listener = listener
        self._settings = settings
        self._inner, self._outer = socket.socketpair()
        self._pid = 0

    def run(self) -> None:
        """Warm a worker, wait for a connection, and serve it."""
        die_with = death_with(os.getpid())
        self._pid = os.fork()
        if self._pid == 0:
            die_with()
            os.setsid()
            for sock in (self._inner, self._listener, self._link):
                sock.close()
            self._be_worker()
        self._outer.close()
        try:
            self._serve()
        finally:
            # What has had no order ends by itself then.
            self._inner.close()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)

    def _serve(self) -> None:
        told, _ = receive(self._inner)
        send(self._link, told)
        if told["state"] != READY:
            return
        while _is_wanted(self._listener, self._link, self._inner):
            connection = _accepted(self._listener)
            if connection is not None:
                self._listener.close()
                send(self._link, {"state": TAKEN})
                with connection:
                    guard(connection, self._ordered)
                return

    def _ordered(self, order: Message, output: List[int]) -> int:
        send(self._inner, order, output)
        return self._pid

    def _be_worker(self) -> NoReturn:
        try:
            before = Before()
            told = _warmed(self._settings)
            imported = before.imported()
            send(self._outer, told)
            order, output = receive(self._outer)
        except Closed:
            signal.alarm(_END_SECONDS)
            worker.run_exit_handlers()  # they remove what the imports have made
            os._exit(0)
        worker.run(order, output, imported)


def _warmed(settings: Dict[str, Any]) -> Message:
    """Import everything; return what to tell the supervisor of it."""
    try:
        done = warm(
            settings["code_origin"], settings["working_directory"], settings["dagster_yaml"]
        )
    except BaseException as error:  # noqa: BLE001  (sys.exit in a module is a failure as well)
        traceback.print_exc()
        return {"state": FAILED, "words": _sayable("%s: %s" % (type(error).__name__, error))}
    return {
        "state": READY,
        "words": _sayable(done.words),
        "imported_seconds": round(done.seconds, 3),
        "memory_mb": _resident_mb(),
    }


def _sayable(words: str) -> str:
    """Return what the agent takes: not too long, and text."""
    return words[:_LONGEST_WORDS].encode("utf-8", "replace").decode("utf-8")


def _is_wanted(listener: socket.socket, *others: socket.socket) -> bool:
    """Wait for a connection; return False once one of the others has closed its side."""
    poll = select.poll()
    for sock in (listener, *others):
        poll.register(sock, select.POLLIN)
    ready = dict(poll.poll())
    return not any(other.fileno() in ready for other in others)


def _accepted(listener: socket.socket) -> Optional[socket.socket]:
    """Accept without waiting: another spare may have been faster."""
    try:
        connection, _ = listener.accept()
    except OSError:
        return None
    connection.setblocking(True)
    return connection


def _resident_mb() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
