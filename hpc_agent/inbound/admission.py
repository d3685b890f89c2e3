"""Who is let in: strangers up to a number, in all and from each address; the known up to all.

A stranger takes milliseconds to show its token. So where there are too many it is the one that has
waited longest that goes, and not the newcomer: a compute node whose jobs share an address with an
attacker is not shut out. Nobody is put out who came within the last second, else a thousand jobs
that start at once would put out each other.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import defaultdict
from collections.abc import Callable

from hpc_agent.inbound.limits import Limits


class TooManyError(Exception):
    """There is no room for a connection; the message says of what there are too many."""


class Guest:
    """One connection, from its acceptance to its end."""

    def __init__(self, admission: Admission, peer: str, since: float) -> None:
        self._admission = admission
        self.peer = peer
        self.since = since
        self.is_known = False
        self.abort: Callable[[], object] = _nothing
        self._deadline: asyncio.TimerHandle | None = None

    def vouch(self) -> None:
        """Note that a valid token has come over this connection: it is a stranger no more."""
        if not self.is_known:
            self.is_known = True
            self._admission.strike(self)

    def abort_after(self, seconds: float) -> None:
        """End the connection then, unless it has come to its end before."""
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)

    def leave(self) -> None:
        """Give up the place, once the connection is closed; more than once does no harm."""
        if self._deadline is not None:
            self._deadline.cancel()
        self.abort = _nothing
        self._admission.leave(self)


class Admission:
    """Counts the connections of one listener."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._guests: set[Guest] = set()
        # By peer, oldest first (dict as an ordered set).
        self._strangers: defaultdict[str, dict[Guest, None]] = defaultdict(dict)
        self._number_of_strangers = 0

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._guests)

    @property
    def strangers(self) -> int:
        """How many of them have shown no token."""
        return self._number_of_strangers

    def admit(self, peer: str) -> Guest:
        """Let a connection in, putting out an idle stranger where needed. Raises TooManyError."""
        limits, own = self._limits, len(self._strangers.get(peer, ()))
        if len(self._guests) >= limits.connections:
            self._make_room(f"{limits.connections} connections are open")
        elif own >= limits.strangers_per_peer:
            self._make_room(f"it has {own} connections without a token", peer)
        elif self._number_of_strangers >= limits.strangers:
            self._make_room(f"{limits.strangers} connections are open without a token")
        guest = Guest(self, peer, self._clock())
        self._guests.add(guest)
        self._strangers[peer][guest] = None
        self._number_of_strangers += 1
        return guest

    def strike(self, guest: Guest) -> None:
        """Count a guest as a stranger no more."""
        own = self._strangers.get(guest.peer, {})
        if guest in own:
            del own[guest]
            self._number_of_strangers -= 1
        if not own:
            self._strangers.pop(guest.peer, None)

    def leave(self, guest: Guest) -> None:
        """Count a guest no more."""
        self._guests.discard(guest)
        self.strike(guest)

    def put_out_all(self) -> None:
        """End every connection, whatever it speaks."""
        for guest in list(self._guests):
            guest.abort()

    def _make_room(self, reason: str, peer: str | None = None) -> None:
        """Put out the longest waiting stranger of a peer, by default of the one with most."""
        if peer is None and self._strangers:
            peer = max(self._strangers, key=lambda each: len(self._strangers[each]))
        oldest = next(iter(self._strangers.get(peer or "", ())), None)
        if oldest is None or self._clock() - oldest.since < self._limits.patience_seconds:
            raise TooManyError(reason)
        self.strike(oldest)
        oldest.abort()


def peer_of(address: str) -> str:
    """Return what counts as one peer: an IPv4 address, or the /64 network of an IPv6 one.

    All of a unix socket is one.
    """
    if not address:
        return address
    ip = ip_of(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.ip_network((ip, 64), strict=False))


def ip_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IP address of a peer, IPv4 also where the socket speaks IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip


def _nothing() -> None:
    """Is done to put out a guest that is not there yet, or no more."""
