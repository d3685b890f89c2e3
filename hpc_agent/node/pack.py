"""A pack: one job in which several code servers live, each with a job directory of its own.

The agent leaves an order for each server, a file in ``servers/`` named after its key, and takes it
away when the server is to end. A server is started by its own script, as the scheduler would.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Dict, List, Set

from . import records, signals
from .child import before_exec
from .job_files import open_output
from .journal import log
from .records import Ending, exit_record, note, start_record
from .spec import Spec

ORDERS = "servers"
_LOOK_SECONDS = 1.0
_BASH = "/bin/bash"


class Pack:
    """Keeps the servers running that are ordered; ends when none has been for a while."""

    def __init__(self, job_dir: str, spec: Spec) -> None:
        """Take the pack's own directory; the servers' directories are beside it."""
        self._job_dir = job_dir
        self._spec = spec
        self._context = records.current_context(spec.key)
        self._servers: Dict[str, "subprocess.Popen[bytes]"] = {}
        self._seen: Set[str] = set()
        self._ending: Set[str] = set()

    def run(self) -> int:
        """Serve orders until a signal asks for the end, or nobody orders anything any more."""
        signals.block()
        note(self._path("start.json"), start_record(self._context))
        log("pack %s on %s" % (self._spec.key, self._context.hostname))
        idle_since = time.monotonic()
        reason = "no server was ordered for %g s" % self._spec.idle_seconds
        while not self._is_idle(idle_since):
            orders = self._orders()
            # Orders of servers that have ended may stay.
            if self._servers or not self._seen.issuperset(orders):
                idle_since = time.monotonic()
            self._follow(orders)
            received = signals.wait(_LOOK_SECONDS)
            if received in signals.TERMINATING:
                reason = "ended on %s" % signal.Signals(received).name
                break
        self._end_all()
        log(reason)
        ending = Ending(records.EXITED, reason=reason, exit_code=0)
        note(self._path("exit.json"), exit_record(self._context, ending))
        return 0

    def _path(self, name: str) -> str:
        return os.path.join(self._job_dir, name)

    def _is_idle(self, since: float) -> bool:
        return time.monotonic() - since > self._spec.idle_seconds

    def _orders(self) -> List[str]:
        """Return the keys that are ordered; a directory that cannot be read changes nothing."""
        try:
            return os.listdir(self._path(ORDERS))
        except OSError as error:
            log("cannot read the orders: %s" % error)
            return list(self._servers)

    def _follow(self, orders: List[str]) -> None:
        for key in list(self._servers):
            status = self._servers[key].poll()
            if status is not None:
                log("server %s ended with status %d" % (key, status))
                del self._servers[key]
            elif key not in orders:
                self._end(key)
        for key in orders:
            if key not in self._seen:
                self._start(key)

    def _start(self, key: str) -> None:
        """Start a server once: one that has ended is not started again under the same key."""
        self._seen.add(key)
        directory = os.path.join(os.path.dirname(self._job_dir), key)
        try:
            with os.fdopen(open_output(os.path.join(directory, "slurm.out")), "ab") as output:
                self._servers[key] = subprocess.Popen(
                    [_BASH, os.path.join(directory, "job.sh")],
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=before_exec(),  # noqa: PLW1509  (one thread)
                )
        except OSError as error:
            log("cannot start server %s: %s" % (key, error))
            return
        log("started server %s as process %d" % (key, self._servers[key].pid))

    def _end(self, key: str) -> None:
        if key not in self._ending:
            self._ending.add(key)
            log("ending server %s" % key)
            self._servers[key].send_signal(signal.SIGTERM)

    def _end_all(self) -> None:
        """Ask all to end; each gives its own child the grace that its own specification says."""
        for key in self._servers:
            self._end(key)
        while any(server.poll() is None for server in self._servers.values()):
            signals.wait(_LOOK_SECONDS)
