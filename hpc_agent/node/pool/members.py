"""The members that a node has: their slot programs and the CPUs that each may use."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Sequence, Set, Tuple

from .. import signals
from ..journal import log
from ..spec import Slot
from .messages import Closed, Message, receive_now, send
from .slot import SlotProgram

Offer = Callable[[Message], Message]

# Before a member is tried again that could not be started, or ended before its claim.
_PAUSE_SECONDS = 5.0


@dataclass
class _Member:
    pid: int
    ask: socket.socket
    cpus: Tuple[int, ...]
    sent: Set[str] = field(default_factory=set)


class Members:
    """Starts each member until it has claimed its job, and ends it when it is told to."""

    def __init__(
        self,
        jobs_directory: str,
        slot: Slot,
        shares: Sequence[Tuple[int, ...]],
        environment: Dict[str, str],
        look_seconds: float,
    ) -> None:
        self._jobs_directory = jobs_directory
        self._slot = slot
        self._free_shares = list(shares)
        self._environment = environment
        self._look_seconds = look_seconds
        self._members: Dict[str, _Member] = {}
        self._started: Set[str] = set()
        self._not_before: Dict[str, float] = {}

    @property
    def held(self) -> List[str]:
        """The keys of those that have not ended."""
        return sorted(self._members)

    def start(self, key: str) -> None:
        """Start a member, unless that was done before, or was tried a moment ago."""
        if key in self._started or time.monotonic() < self._not_before.get(key, 0.0):
            return
        cpus = self._free_shares[-1] if self._free_shares else ()
        directory = os.path.join(self._jobs_directory, key)
        program = SlotProgram(directory, self._slot, cpus, self._environment)
        try:
            pid, ask = program.start(self._look_seconds)
        except OSError as error:  # as long as the agent wants it here, it is tried again
            log("member %s cannot be started: %s" % (key, error))
            self._not_before[key] = time.monotonic() + _PAUSE_SECONDS
            return
        self._started.add(key)
        del self._free_shares[-1:]
        signals.watch(ask.fileno())
        self._members[key] = _Member(pid, ask, cpus)
        log("member %s is process %d" % (key, pid))

    def end(self, key: str, name: str) -> None:
        """Send a member a signal, INT or TERM, unless it has had it."""
        member = self._members.get(key)
        if member is None or name in member.sent:
            return
        member.sent.add(name)
        log("ending member %s by SIG%s" % (key, name))
        os.kill(member.pid, signal.Signals["SIG" + name])

    def end_all(self, number: int) -> None:
        """Pass a signal on to all: each ends its child with the grace that it was given."""
        for key in self.held:
            self.end(key, signal.Signals(number).name[len("SIG") :])

    def answer(self, offer: Offer) -> None:
        """Make an offer to each slot program that has asked for its template."""
        for member in self._members.values():
            try:
                asked = receive_now(member.ask)
                if asked is not None:
                    send(member.ask, offer(asked))
            except Closed:
                continue  # it has ended, or goes on without a template

    def has_ended(self, pid: int) -> bool:
        """Note the end of a slot program; False when it is none."""
        for key, member in self._members.items():
            if member.pid == pid:
                log("member %s has ended" % key)
                member.ask.close()
                if member.cpus:
                    self._free_shares.append(member.cpus)
                del self._members[key]
                if not self._has_claim(key):
                    self._let_start_again(key)
                return True
        return False

    def _has_claim(self, key: str) -> bool:
        return os.path.lexists(os.path.join(self._jobs_directory, key, "claim"))

    def _let_start_again(self, key: str) -> None:
        """It may have any number of starts: whichever has the claim runs it."""
        log("member %s had not claimed its job: it may be started again" % key)
        self._started.discard(key)
        self._not_before[key] = time.monotonic() + _PAUSE_SECONDS
