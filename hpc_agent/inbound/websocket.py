"""Websockets on a connection that HTTP has begun; for listeners whose application has some.

It takes the package ``websockets``, which an agent does not have.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from hpc_agent.inbound.admission import Guest
from hpc_agent.inbound.callers import Callers
from hpc_agent.inbound.limits import Limits


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn's protocol for a guest, who leaves with the connection."""

    def __init__(self, *, guest: Guest, limits: Limits, **arguments: Any) -> None:
        """Take what uvicorn passes when a request asks for the upgrade."""
        super().__init__(**arguments)
        self.app = Callers(self.app, guest, limits)
        self._guest = guest

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the guest go."""
        super().connection_lost(exc)
        self._guest.leave()

    async def send(self, message: Any) -> None:
        """Send, unless the listener's stop has closed the connection: then its peer has gone."""
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)
