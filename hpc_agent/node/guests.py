"""Who is connected to the loopback proxy: other users of the node can be, and say nothing.

A connection is a stranger until the job's token has come over it. Where there are too many, the one
that has waited longest goes; the child's own shows its token at once. Nobody is refused, since a
refusal would fail the child: a new connection waits in the kernel's queue for its turn.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from io import BufferedIOBase
from typing import Dict, Set

MOST_CONNECTIONS = 512
MOST_STRANGERS = 64
PATIENCE_SECONDS = 1.0
TOKEN_SECONDS = 10.0
HEAD_BYTES = 64 << 10


class HeadTooLarge(OSError):  # noqa: N818
    """Request line and headers are larger than HEAD_BYTES."""


class Guests:
    """The connections of one proxy; safe for threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # By age: dictionaries keep their order.
        self._strangers: Dict[socket.socket, float] = {}
        self._known: Set[socket.socket] = set()

    def admit(self, connection: socket.socket) -> None:
        """Wait until there is room for a connection, which makes some if need be."""
        with self._changed:
            while self._is_full():
                self._drop_older_than(PATIENCE_SECONDS, at_most=1)
                self._changed.wait(0.05)
            self._strangers[connection] = time.monotonic()

    def vouch(self, connection: socket.socket) -> None:
        """Note that the token has come over a connection."""
        with self._changed:
            if self._strangers.pop(connection, None) is not None:
                self._known.add(connection)
                self._changed.notify_all()

    def leave(self, connection: socket.socket) -> None:
        """Note that a connection is about to be closed."""
        with self._changed:
            self._strangers.pop(connection, None)
            self._known.discard(connection)
            self._changed.notify_all()

    def drop_late(self) -> None:
        """End the connections that have not shown the token in time."""
        with self._changed:
            self._drop_older_than(TOKEN_SECONDS, at_most=MOST_STRANGERS)

    def _is_full(self) -> bool:
        strangers = len(self._strangers)
        return strangers >= MOST_STRANGERS or strangers + len(self._known) >= MOST_CONNECTIONS

    def _drop_older_than(self, seconds: float, at_most: int) -> None:
        """Let the threads of the oldest strangers read an end; they leave by themselves."""
        before = time.monotonic() - seconds
        for connection, since in list(self._strangers.items())[:at_most]:
            if since <= before:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class Head:
    """What a request's head is read from: http.server takes 100 lines of 64 KiB each."""

    def __init__(self, source: BufferedIOBase) -> None:
        self._source = source
        self._left = HEAD_BYTES

    def begin(self) -> None:
        """Expect the next request."""
        self._left = HEAD_BYTES

    def readline(self, size: int) -> bytes:
        """Read a line. Raises HeadTooLarge."""
        line = self._source.readline(min(size, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise HeadTooLarge
        return line

    def close(self) -> None:
        """Close the connection's stream."""
        self._source.close()
