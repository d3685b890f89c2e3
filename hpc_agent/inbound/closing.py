"""A connection that was closed is gone some seconds later, whatever its peer does."""

from __future__ import annotations

import asyncio
from typing import Any

from hpc_agent.inbound.admission import Guest


class ClosingTransport:
    """The transport of a guest, in all but ``close``.

    asyncio's own stays for ever when the peer has ended the connection while reading was paused:
    it waits for the reader then, and takes no notice of ``close`` (SSLProtocol.eof_received and
    _start_shutdown, asyncio/sslproto.py).
    """

    def __init__(self, transport: asyncio.Transport, guest: Guest, seconds: float) -> None:
        self._transport = transport
        self._guest = guest
        self._seconds = seconds
        self._is_closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Send what is to be sent, tell the peer, and wait for it a little while.

        Done once: a TLS transport that is closed twice forgets its protocol, and then neither
        ``abort`` ends it nor can it be asked for anything (asyncio/sslproto.py of Python 3.11).
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._transport.close()
        self._guest.abort_after(self._seconds)
