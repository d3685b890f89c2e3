"""A pack: one job in which several code servers live, each with a job directory of its own.

The agent leaves an order for each server, a file in ``servers/`` named after its key, and takes it
away when the server is to end. A server is started by its own script, as the scheduler would.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Dict, List, Set

from . import records, signals
from .journal import log
from .packed_server import PackedServer
from .records import Ending, exit_record, note, start_record
from .spec import Spec

ORDERS = "servers"
_LOOK_SECONDS = 1.0


class Pack:
    """Keeps the servers running that are ordered; ends when none has been for a while."""

    def __init__(self, job_dir: str, spec: Spec) -> None:
        """Take the pack's own directory; the servers' directories are beside it."""
        self._job_dir = job_dir
        self._spec = spec
        self._context = records.current_context(spec.key)
        self._servers: Dict[str, PackedServer] = {}
        self._seen: Set[str] = set()

    def run(self) -> int:
        """Serve orders until a signal asks for the end, or nobody orders anything any more."""
        signals.block()
        note(self._path("start.json"), start_record(self._context))
        log("pack %s on %s" % (self._spec.key, self._context.hostname))
        idle_since = time.monotonic()
        reason = "no server was ordered for %g s" % self._spec.idle_seconds
        while not self._is_idle(idle_since):
            orders = self._orders()
            self._follow(orders)
            # The orders of servers that have ended may stay.
            if not all(server.is_over for server in self._servers.values()):
                idle_since = time.monotonic()
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
        for key in orders:
            if key not in self._seen:
                self._seen.add(key)
                directory = os.path.join(os.path.dirname(self._job_dir), key)
                self._servers[key] = PackedServer(directory, key)
        for key, server in list(self._servers.items()):
            if not server.follow(key in orders):
                del self._servers[key]

    def _end_all(self) -> None:
        """Ask all to end; each gives its own child the grace that its own specification says."""
        for server in self._servers.values():
            server.end()
        while any(server.runs() for server in self._servers.values()):
            signals.wait(_LOOK_SECONDS)
