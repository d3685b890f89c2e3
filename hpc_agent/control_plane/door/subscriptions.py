"""The UI's websocket: its messages are read, and only queries and subscriptions let through.

Protocol: https://github.com/apollographql/subscriptions-transport-ws/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from hpc_agent.control_plane.documents import mutations_of
from hpc_agent.control_plane.door.gate import visitor_of
from hpc_agent.control_plane.door.upstream import Upstream
from hpc_agent.control_plane.door.visitor import Recognition
from hpc_agent.control_plane.webserver_socket import told_of
from hpc_agent.errors import ControlPlaneRefusedError
from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.graphql_request import GraphQLRequest
from hpc_agent.inbound.json_text import loads_object

PROTOCOL = Subprotocol("graphql-ws")
MAX_ANSWER_BYTES = 64 << 20
GOING_AWAY, POLICY_VIOLATION, TRY_AGAIN_LATER = 1001, 1008, 1013

logger = logging.getLogger(__name__)


class Subscriptions:
    """ASGI application for ``/graphql`` as a websocket."""

    def __init__(
        self,
        upstream: Upstream,
        recognition: Recognition,
        *,
        recheck_seconds: float,
        per_visitor: int,
    ) -> None:
        self._upstream = upstream
        self._recognition = recognition
        self._recheck_seconds = recheck_seconds
        self._per_visitor = per_visitor
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        visitor = visitor_of(websocket)
        if PROTOCOL not in scope["subprotocols"] or self._open[visitor.name] >= self._per_visitor:
            await websocket.close(TRY_AGAIN_LATER)
            return
        self._open[visitor.name] += 1
        try:
            await self._serve(websocket)
        finally:
            self._open[visitor.name] -= 1

    async def _serve(self, websocket: WebSocket) -> None:
        role = visitor_of(websocket).role
        try:
            async with unix_connect(
                str(self._upstream.socket), "ws://webserver/graphql", subprotocols=[PROTOCOL],
                additional_headers=told_of(role), max_size=MAX_ANSWER_BYTES, proxy=None,
            ) as webserver:  # fmt: skip
                await websocket.accept(subprotocol=PROTOCOL)
                code = await _first_of(
                    _listen(websocket, webserver),
                    _tell(websocket, webserver),
                    self._watch(websocket),
                )
        except (OSError, WebSocketException) as error:
            logger.warning("the webserver's websocket: %r", error)
            code = GOING_AWAY
        await _close(websocket, code)

    async def _watch(self, websocket: WebSocket) -> int:
        """Return once the visitor would not be let in any more, or with another role."""
        before = visitor_of(websocket)
        while await self._recognition.visitor(websocket) == before:  # noqa: ASYNC110 others change it
            await asyncio.sleep(self._recheck_seconds)
        return POLICY_VIOLATION


async def _listen(websocket: WebSocket, webserver: ClientConnection) -> int:
    """Pass on what the visitor says, made anew."""
    while True:
        try:
            message = loads_object(await websocket.receive_text())
            kind, operation_id = message["type"], message.get("id")
            if not isinstance(operation_id, str | int | None):
                return POLICY_VIOLATION
            said = {"type": kind, "id": operation_id}
            if kind == "start":
                said["payload"] = await _payload(message.get("payload"))
            elif kind not in {"connection_init", "stop", "connection_terminate"}:
                return POLICY_VIOLATION
        except ControlPlaneRefusedError as error:
            refusal = {"type": "error", "id": operation_id, "payload": {"message": str(error)}}
            await websocket.send_text(json.dumps(refusal))
            continue
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return POLICY_VIOLATION
        await webserver.send(json.dumps(said))


async def _payload(data: object) -> dict[str, Any]:
    try:
        asked = GraphQLRequest.of(data)
        mutations = await asyncio.to_thread(mutations_of, asked.document)
    except InputError as error:
        raise ControlPlaneRefusedError(str(error)) from error
    if mutations:
        raise ControlPlaneRefusedError("a mutation is sent by POST, not over a websocket")
    return asked.message


async def _tell(websocket: WebSocket, webserver: ClientConnection) -> int:
    """Pass on what the webserver says."""
    async for message in webserver:
        await websocket.send_text(message if isinstance(message, str) else message.decode())
    return GOING_AWAY


async def _first_of(*parts: Coroutine[Any, Any, int]) -> int:
    """Return the code of whichever ends first, and end the others."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    except (ConnectionClosed, WebSocketDisconnect):
        return GOING_AWAY
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _close(websocket: WebSocket, code: int) -> None:
    try:
        await websocket.close(code)
    except (RuntimeError, WebSocketDisconnect):
        return  # the visitor has gone first
