"""What a forked process does to be the worker of one member, as if it had been executed."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from typing import Any, Collection, List, NoReturn, Sequence

from .. import signals
from .descriptors import take_over
from .imported import Imported
from .mark import leave_mark
from .messages import Message

# The kernel that is out of memory ends a worker before what looks after workers (proc(5)).
_OOM_SCORE = "500"


def run(order: Message, output: Sequence[int], imported: Imported) -> NoReturn:
    """Become the worker that an order describes, printing into two descriptors; never returns.

    What the user's modules have opened stays open, and the variables that they set are set.
    """
    try:
        _begin(output, imported.descriptors)
        _settle(order, imported)
        code = _execute(list(order["argv"]))
    except BaseException:  # noqa: BLE001  (whatever it is, this process ends with it)
        traceback.print_exc()
        code = 1
    _exit(code)


def _begin(output: Sequence[int], kept: Collection[int]) -> None:
    """Have a session, standard streams and default signals of our own, and nothing of others."""
    with contextlib.suppress(PermissionError):  # a spare leads its session already
        os.setsid()
    take_over(output, kept)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signals.unblock()


def _settle(order: Message, imported: Imported) -> None:
    """Take the member's directory, variables and share of the machine."""
    if order["directory"]:
        os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    imported.carry_over(os.environ)
    leave_mark(order["environment"])
    time.tzset()
    os.nice(order["nice"])
    if order["cpus"]:
        with contextlib.suppress(OSError):  # taken from the allocation meanwhile
            os.sched_setaffinity(0, order["cpus"])
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE)
    # `random` does so by itself after a fork, since Python 3.7.
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()


def _execute(argv: List[str]) -> int:
    """Run ``python -m MODULE …`` in this process; return what would be its exit code."""
    if argv[1] != "-m":
        raise ValueError("no module's command: %r" % argv[:3])
    sys.argv = argv[2:]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = list(argv)
    try:
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return _code(end.code)
    return 0


def _code(given: Any) -> int:
    """Read the argument of ``sys.exit`` (Python's documentation of it)."""
    if given is None or isinstance(given, int):
        return (given or 0) & 0xFF
    sys.stderr.write("%s\n" % (given,))
    return 1


def run_exit_handlers() -> None:
    """Do what has been registered by atexit."""
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()


def _exit(code: int) -> NoReturn:
    """End as an interpreter does, but for the taking apart of all modules, which takes long.

    exit(3) runs what libraries have registered: HDF5 writes files to their end there.
    """
    with contextlib.suppress(Exception):  # as multiprocessing does
        threading._shutdown()  # type: ignore[attr-defined]
    run_exit_handlers()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    ctypes.CDLL(None).exit(code)
    os._exit(code)
