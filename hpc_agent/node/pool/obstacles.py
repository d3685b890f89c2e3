"""What keeps a process from being forked: threads, and what workers would share to their harm."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import Any, Collection, Iterator, List

from .descriptors import can_be_shared, opened
from .removals import RemovalWatch

_TASKS = "/proc/self/task"


class ThreadWatch:
    """Sees, at each import, whether there are more threads than at the one before."""

    def __init__(self) -> None:
        self._number = _threads()
        self._last = "the program"
        self.during: List[str] = []
        """Modules while which were imported threads came to be."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Look, and find nothing: a finder of ``sys.meta_path`` that only watches."""
        self.look()
        self._last = name

    def look(self) -> None:
        """Note the module that was imported last where there are more threads now."""
        number = _threads()
        if number > self._number:
            self.during.append(self._last)
        self._number = number


class Watch:
    """What is seen of imports while they go on."""

    def __init__(self) -> None:
        self.threads = ThreadWatch()
        self.removals = RemovalWatch()


@contextmanager
def watched_imports() -> Iterator[Watch]:
    """Watch the imports of a block for what cannot be seen after it."""
    watch = Watch()
    sys.meta_path.insert(0, watch.threads)
    try:
        with watch.removals.watching():
            yield watch
    finally:
        sys.meta_path.remove(watch.threads)
        watch.threads.look()


def obstacle(watch: Watch, before: Collection[int]) -> str:
    """Return in words what forbids to fork after the user's imports, "" where nothing does.

    ``before`` are the descriptors that were open before them.
    """
    # OpenBLAS ends its threads before a fork, and starts them again when they are needed.
    if _threads() > 1:
        _fork_once()
    if _threads() > 1:
        return _words_of_threads(watch.threads)
    shared = [
        "descriptor %d (%s)" % (number, what)
        for number, what in sorted(opened().items())
        if number not in before and not can_be_shared(number)
    ]
    if shared:
        return "its imports opened what workers cannot share: " + ", ".join(shared)
    removals = watch.removals.found()
    if removals:
        return "its imports have each process remove files at its end: " + "; ".join(removals)
    if _has_channel():
        return "its imports opened a gRPC channel"
    return ""


def _threads() -> int:
    return len(os.listdir(_TASKS))


def _fork_once() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _words_of_threads(watch: ThreadWatch) -> str:
    """Name the modules while which were imported threads came, and what runs in Python's own."""
    running = {
        _name_of(thread)
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    }
    return "its imports started %d threads, in %s%s" % (
        _threads() - 1,
        ", ".join(watch.during) or "nobody knows which",
        " (%s)" % ", ".join(sorted(running)) if running else "",
    )


def _name_of(thread: threading.Thread) -> str:
    run = getattr(thread, "_target", None) or type(thread)
    return "%s.%s" % (run.__module__, getattr(run, "__qualname__", "?"))


def _has_channel() -> bool:
    grpc = sys.modules.get("grpc")
    if grpc is None:
        return False
    import gc

    # Not isinstance: it asks objects what they are, and some have side effects then.
    return any(issubclass(type(each), grpc.Channel) for each in gc.get_objects())
