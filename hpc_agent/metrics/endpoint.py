"""The listener on which metrics are read: one path, plain text, this machine only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hpc_agent.errors import HpcAgentError
from hpc_agent.inbound.limits import Limits
from hpc_agent.inbound.listener import Listener
from hpc_agent.metrics.address import LocalAddress
from hpc_agent.metrics.meter import Meter, Reading
from hpc_agent.metrics.prometheus import CONTENT_TYPE

log = logging.getLogger(__name__)

Read = Callable[[], Awaitable[Iterable[Reading]]]

PATH = "/metrics"
_CONNECTIONS = 32
# Below Prometheus's scrape_timeout: why there is no answer should reach somebody.
READ_SECONDS = 8.0
_STOP_SECONDS = 1.0
_OUR_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


@asynccontextmanager
async def serving(
    address: LocalAddress,
    meter: Meter,
    read: Read,
    *,
    patience_seconds: float = READ_SECONDS,
) -> AsyncIterator[str]:
    """Show metrics while the block runs, and yield where; ``read`` finds the gauges.

    Raises ConfigError when the address is taken.
    """
    # On disk a socket, and then a chmod.
    bound = await asyncio.to_thread(address.bind)
    with contextlib.closing(bound):
        limits = Limits(connections=_CONNECTIONS, strangers=_CONNECTIONS)
        listener = Listener(_app(meter, read, patience_seconds), tls=None, limits=limits)
        await listener.start(bound)
        shown = _shown(bound)
        log.info("metrics are read at %s", shown)
        try:
            yield shown
        finally:
            await listener.stop(_STOP_SECONDS)
            if address.path is not None:
                await asyncio.to_thread(address.path.unlink, missing_ok=True)


def _app(meter: Meter, read: Read, patience_seconds: float) -> Starlette:
    async def metrics(request: Request) -> Response:
        # A page of elsewhere, whose name its owner lets lead here, is not to read them.
        if request.client is not None and request.url.hostname not in _OUR_NAMES:
            return PlainTextResponse("this is read by the name of this machine\n", 421)
        try:
            async with asyncio.timeout(patience_seconds):
                readings = await read()
        except (HpcAgentError, TimeoutError) as error:
            words = str(error) or "no answer in time"
            return PlainTextResponse(f"cannot be read now: {words}\n", 503)
        text = await asyncio.to_thread(meter.text, readings)
        return Response(text, media_type=CONTENT_TYPE)

    return Starlette(routes=[Route(PATH, metrics, methods=["GET"])])


def _shown(listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port, *_ = listener.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}"
