"""Splice a TLS connection and a local socket: bytes pass both ways until either side ends.

One thread and one selector per pair: an SSL object must not be used from two threads at once.
"""

from __future__ import annotations

import selectors
import socket
import ssl
from typing import Union

_BLOCK = 1 << 16
_HIGH_WATER = 1 << 20

Socket = Union[socket.socket, ssl.SSLSocket]


class _End:
    """One of the two sockets, and what waits to be written to it."""

    def __init__(self, sock: Socket) -> None:
        self.sock = sock
        self.outgoing = bytearray()
        self.ended = False

    def read_into(self, other: _End) -> None:
        """Move what can be read now to the other side's queue."""
        while not self.ended and len(other.outgoing) < _HIGH_WATER:
            try:
                data = self.sock.recv(_BLOCK)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                return
            except OSError:
                data = b""
            self.ended = not data
            other.outgoing += data

    def write(self) -> None:
        """Write what can be written now."""
        while self.outgoing and not self.ended:
            try:
                sent = self.sock.send(self.outgoing[:_BLOCK])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                return
            except OSError:
                self.ended = True
                return
            del self.outgoing[:sent]

    def events(self, other: _End) -> int:
        """Return what to wait for: back-pressure is not to read while the other side is full."""
        reading = selectors.EVENT_READ if len(other.outgoing) < _HIGH_WATER else 0
        return reading | (selectors.EVENT_WRITE if self.outgoing else 0)


def splice(first: Socket, second: Socket) -> None:
    """Pass bytes both ways until either end closes; what it sent before is delivered first."""
    ends = (_End(first), _End(second))
    for end in ends:
        end.sock.setblocking(False)
    with selectors.DefaultSelector() as selector:
        while True:
            # TLS may hold decrypted bytes that no selector sees: always try to read first.
            ends[0].read_into(ends[1])
            ends[1].read_into(ends[0])
            ends[0].write()
            ends[1].write()
            if ends[0].ended or ends[1].ended:
                break
            _wait(selector, ends[0], ends[1])
    _flush(ends[0], ends[1])


def _wait(selector: selectors.BaseSelector, first: _End, second: _End) -> None:
    for end, other in ((first, second), (second, first)):
        events = end.events(other)
        registered = selector.get_map().get(end.sock)
        if registered is None and events:
            selector.register(end.sock, events)
        elif registered is not None and not events:
            selector.unregister(end.sock)
        elif registered is not None and registered.events != events:
            selector.modify(end.sock, events)
    selector.select()


def _flush(first: _End, second: _End) -> None:
    """Deliver what the side that ended had sent before."""
    for end in (first, second):
        if end.ended or not end.outgoing:
            continue
        try:
            end.sock.settimeout(10)
            end.sock.sendall(end.outgoing)
        except OSError:
            pass
