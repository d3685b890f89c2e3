"""What the listener asks of connections that may have been closed twice."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto

from hpc_agent.inbound.listener import unsent_bytes


async def test_connection_that_was_closed_twice_has_nothing_to_send() -> None:
    """The agent ended with a traceback instead of 0 when one was, while it stopped."""
    protocol = sslproto.SSLProtocol(
        asyncio.get_running_loop(),
        asyncio.Protocol(),
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        asyncio.get_running_loop().create_future(),
        server_side=True,
    )
    transport = protocol._get_app_transport()  # type: ignore[attr-defined]
    transport.close()
    transport.close()

    assert unsent_bytes(transport) == 0
