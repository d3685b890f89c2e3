"""HTTP to the relay over a pool of persistent TLS connections."""

from __future__ import annotations

import http.client
import select
import threading
import time
from dataclasses import dataclass
from typing import Iterable, List, Mapping, Optional, Tuple, Union

from .relay_address import HTTP, RelayUnreachable, dial

# Shorter than the relay's own keep-alive, so that it is this side that closes idle connections:
# a request is then rarely sent into one that is being closed.
IDLE_SECONDS = 20.0
RESPONSE_SECONDS = 75.0

Body = Union[bytes, Iterable[bytes]]


@dataclass(frozen=True)
class Request:
    """One request; a body of bytes can be sent again, an iterator cannot.

    ``length`` is that of an iterated body, None for chunked transfer.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Body = b""
    length: Optional[int] = None

    @property
    def replayable(self) -> bool:
        return isinstance(self.body, bytes)


class NotSent(Exception):  # noqa: N818
    """The request did not reach the relay: sending it again is safe."""


class NoAnswer(Exception):  # noqa: N818
    """The connection broke after the request was (partly) sent: it may have been acted on."""


class RelayClient:
    """Sends requests to whatever relay ``relay.json`` names at the moment; safe for threads."""

    def __init__(self, relay_file: str) -> None:
        self._relay_file = relay_file
        self._idle: List[Tuple[float, http.client.HTTPConnection]] = []
        self._lock = threading.Lock()

    def send(self, request: Request) -> Exchange:
        """Send one request and return its answer, unread. Raises NotSent or NoAnswer."""
        connection = self._take() or self._dial()
        try:
            _write(connection, request)
            return Exchange(self, connection, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NoAnswer("the connection to the relay broke: %r" % error) from error
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection for the next request."""
        with self._lock:
            self._idle.append((time.monotonic(), connection))

    def _take(self) -> Optional[http.client.HTTPConnection]:
        oldest = time.monotonic() - IDLE_SECONDS
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, connection = self._idle.pop()
            if since >= oldest and not _readable(connection):
                return connection
            connection.close()

    def _dial(self) -> http.client.HTTPConnection:
        try:
            sock = dial(self._relay_file, HTTP)
        except RelayUnreachable as error:
            raise NotSent(str(error)) from error
        sock.settimeout(RESPONSE_SECONDS)
        connection = http.client.HTTPConnection("relay", blocksize=1 << 16)
        connection.auto_open = 0  # http.client would reconnect by itself, without TLS
        connection.sock = sock
        return connection


class Exchange:
    """An answer being read; ``close`` gives its connection back when it was read to the end."""

    def __init__(
        self,
        client: RelayClient,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
    ) -> None:
        self._client = client
        self._connection = connection
        self._reusable = not response.will_close
        self.response = response

    def read(self, limit: int) -> bytes:
        """Return the whole body and close. Raises NoAnswer, also for more than ``limit`` bytes."""
        try:
            body = self.response.read(limit + 1)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer("the relay's answer broke off: %r" % error) from error
        finally:
            self.close()
        if len(body) > limit:
            raise NoAnswer("the relay's answer is larger than %d bytes" % limit)
        if self.response.length:  # http.client says nothing when it was asked for some bytes only
            raise NoAnswer("the relay's answer broke off after %d bytes" % len(body))
        return body

    def close(self) -> None:
        """Give the connection back, or close it when the answer was not read to its end."""
        if self._reusable and self.response.isclosed():
            self._client.give_back(self._connection)
        else:
            self._connection.close()


def _write(connection: http.client.HTTPConnection, request: Request) -> None:
    connection.putrequest(request.method, request.path, skip_accept_encoding=True)
    for name, value in request.headers.items():
        connection.putheader(name, value)
    body = request.body
    if isinstance(body, bytes):
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        return
    if request.length is not None:
        connection.putheader("Content-Length", str(request.length))
        connection.endheaders()
        for chunk in body:
            connection.send(chunk)
        return
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    for chunk in body:
        connection.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    connection.send(b"0\r\n\r\n")


def _readable(connection: http.client.HTTPConnection) -> bool:
    """Whether an idle connection has something to read: then the other side has closed it."""
    poll = select.poll()  # select.select fails for descriptors above 1023
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
