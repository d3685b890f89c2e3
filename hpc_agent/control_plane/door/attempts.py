"""How often a peer may show a wrong token."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hpc_agent.errors import ControlPlaneRefusedError

FAILURES = 10
WINDOW_SECONDS = 60.0
MAX_PEERS = 4096


class TooManyAttemptsError(ControlPlaneRefusedError):
    """This peer has shown too many wrong tokens lately."""


@dataclass(slots=True)
class Attempt:
    """One attempt, a failure until told otherwise."""

    has_succeeded: bool = field(default=False, init=False)

    def succeed(self) -> None:
        self.has_succeeded = True


class Attempts:
    """Counts per peer, in bounded memory.

    A token cannot be guessed: this bounds what guessing costs. An attempt counts from its
    beginning, so that many at once are no way around.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    @contextlib.contextmanager
    def one(self, peer: str) -> Iterator[Attempt]:
        """Hold one attempt. Raises TooManyAttemptsError."""
        key, now = _network(peer), self._clock()
        failures = [at for at in self._failures.get(key, []) if now - at < WINDOW_SECONDS]
        if len(failures) >= FAILURES:
            raise TooManyAttemptsError("too many wrong tokens from your address: wait a minute")
        self._failures[key] = [*failures, now]
        self._failures.move_to_end(key)
        while len(self._failures) > MAX_PEERS:
            self._failures.popitem(last=False)
        attempt = Attempt()
        yield attempt
        if attempt.has_succeeded and key in self._failures:
            with contextlib.suppress(ValueError):
                self._failures[key].remove(now)


def _network(peer: str) -> str:
    """Return what one host can have at most: of IPv6, a /64."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    return peer if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
