"""One TLS port, or unix socket: accepts whom there is room for; ALPN says what is spoken."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from hpc_agent.inbound.admission import Admission, Guest, TooManyError, ip_of, peer_of
from hpc_agent.inbound.closing import ClosingTransport
from hpc_agent.inbound.http import HttpConnection, Upgrade
from hpc_agent.inbound.limits import Limits
from hpc_agent.seldom import seldom

log = seldom(__name__)

HTTP = "http/1.1"
BACKLOG = 2048

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ServeStream = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter, Callable[[], None]], Awaitable[None]
]
"""Serves a connection that speaks no HTTP; it calls the third argument for a valid token."""

_ACCEPTED_AT_ONCE = 64
_MOST_MESSAGE_BYTES = 1 << 20  # of a websocket
# accept(2): what a listener without descriptors or memory says, and says again at once.
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SHORTAGE_SECONDS = 1.0
# A peer that has vanished without a word is noticed after about three minutes.
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 6))


class Listener:
    """Accepts connections and hands each to HTTP or to what ``streams`` has for its protocol.

    uvicorn's Server is left out on purpose: it takes over signals and logging, accepts without a
    limit, and asyncio logs a line per waiting connection when descriptors run out.
    """

    def __init__(
        self,
        app: Any,
        *,
        tls: ssl.SSLContext | None,
        limits: Limits,
        allow: Sequence[Network] = (),
        streams: Mapping[str, ServeStream] | None = None,
        upgrade: Upgrade | None = None,
        on_turned_away: Callable[[], object] = bool,
    ) -> None:
        """Take an ASGI application; ``allow`` empty admits every network.

        Without ``tls`` it is for a unix socket. ``upgrade`` speaks websockets, if any are spoken.
        ``on_turned_away`` is called for each connection that is closed at once.
        """
        self._config = Config(
            app,
            log_config=None,
            access_log=False,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(limits.idle_seconds),
            ws_max_size=_MOST_MESSAGE_BYTES,
        )
        self._upgrade = upgrade
        self._tls = tls
        self._limits = limits
        self._allow = tuple(allow)
        self._streams = dict(streams or {})
        self._on_turned_away = on_turned_away
        self._state = ServerState()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None
        self._resume: asyncio.TimerHandle | None = None
        self.admission = Admission(limits)

    async def start(self, sock: socket.socket) -> None:
        """Listen on a bound socket, which stays its owner's to close."""
        self._config.load()
        sock.listen(BACKLOG)
        sock.setblocking(False)
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    async def stop(self, deadline_seconds: float) -> None:
        """Stop listening, let requests under way finish until the deadline, drop the rest."""
        self._stop_accepting()
        for handshake in list(self._handshakes):
            handshake.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_seconds):
                # uvicorn has no event for this; its own Server.shutdown polls as well.
                while self._busy():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        self.admission.put_out_all()
        tasks = self._state.tasks | self._handshakes
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _busy(self) -> bool:
        """Whether an answer is being made or sent. An idle peer need not confirm TLS's end."""
        unsent = (c.transport.get_write_buffer_size() for c in self._state.connections)
        return bool(self._state.tasks) or any(unsent)

    def _stop_accepting(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket = None

    def _accept(self, sock: socket.socket) -> None:
        """Take what waits, some at a time: those who are served already have their turn too."""
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SHORT_OF:
                    raise
                self._pause(sock, error)
                return
            self._take(connection, str(address[0]) if address else "")

    def _pause(self, sock: socket.socket, error: OSError) -> None:
        """Leave connections to the kernel for a while, since it would call again at once."""
        log.warning("cannot accept connections, trying again: %s", error.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        self._resume = loop.call_later(
            _SHORTAGE_SECONDS, lambda: loop.add_reader(sock, self._accept, sock)
        )

    def _take(self, sock: socket.socket, address: str) -> None:
        """Admit or close a connection; nothing is spent on TLS before."""
        try:
            if not self._allows(address):
                raise TooManyError("its network is not in relay.allow")  # noqa: TRY301
            guest = self.admission.admit(peer_of(address))
        except TooManyError as refused:
            log.warning("connection from %s refused: %s", address, refused)
            self._on_turned_away()
            sock.close()
            return
        handshake = asyncio.get_running_loop().create_task(self._shake_hands(sock, guest))
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)
        guest.abort = handshake.cancel

    async def _shake_hands(self, sock: socket.socket, guest: Guest) -> None:
        greeter = _Greeter(
            partial(self._protocol_for, guest=guest),
            partial(ClosingTransport, guest=guest, seconds=self._limits.closing_seconds),
        )
        loop = asyncio.get_running_loop()
        try:
            sock.setblocking(False)
            if self._tls is None:
                await loop.connect_accepted_socket(lambda: greeter, sock)
                return
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            await loop.connect_accepted_socket(
                lambda: greeter,
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=self._limits.handshake_seconds,
                ssl_shutdown_timeout=self._limits.closing_seconds,
            )
        except (OSError, asyncio.CancelledError) as error:
            log.debug("no TLS with %s: %r", guest.peer, error)
            _let_go_of_frames(error)
        finally:
            if not greeter.has_handed_over:
                sock.close()
                guest.leave()

    def _protocol_for(self, transport: asyncio.Transport, guest: Guest) -> asyncio.Protocol:
        """Return what serves a new connection."""
        guest.abort = transport.abort
        loop = asyncio.get_running_loop()
        tls = transport.get_extra_info("ssl_object")
        spoken = tls.selected_alpn_protocol() if tls is not None else None
        if spoken in self._streams:
            serve = self._streams[spoken]
            return _Stream(
                asyncio.StreamReader(loop=loop),
                lambda reader, writer: serve(reader, writer, guest.vouch),
                loop,
                guest,
            )
        return HttpConnection(self._config, self._state, guest, self._limits, self._upgrade)

    def _allows(self, address: str) -> bool:
        return not self._allow or any(ip_of(address) in network for network in self._allow)


def _let_go_of_frames(error: BaseException | None) -> None:
    """Free what a handshake had, now and not at the next full garbage collection.

    asyncio/sslproto.py (_on_handshake_complete) has its exception in a frame that the exception
    holds, and 256 KiB of buffer with it: a thousand failed handshakes would be 256 MiB.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


class _Greeter(asyncio.Protocol):
    """Lives from the end of the handshake until the protocol is known: one call."""

    def __init__(
        self,
        protocol_for: Callable[[asyncio.Transport], asyncio.Protocol],
        closing: Callable[[asyncio.Transport], ClosingTransport],
    ) -> None:
        self._protocol_for = protocol_for
        self._closing = closing
        self.has_handed_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (a stream transport)
        protocol = self._protocol_for(transport)
        transport.set_protocol(protocol)
        self.has_handed_over = True
        protocol.connection_made(self._closing(transport))  # type: ignore[arg-type]  # as good


class _Stream(asyncio.StreamReaderProtocol):
    """Streams of a guest, who leaves with the connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        loop: asyncio.AbstractEventLoop,
        guest: Guest,
    ) -> None:
        super().__init__(reader, serve, loop=loop)
        self._guest = guest

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._guest.leave()
