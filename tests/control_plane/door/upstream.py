"""A small application in the webserver's place: it tells what has reached it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


@dataclass(slots=True)
class Webserver:
    """What has reached it; ``may_end`` lets its slow answer end."""

    socket: Path
    requests: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    sockets: int = 0
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Any = None

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                WebSocketRoute("/graphql", self._subscribe),
                Route("/slow", self._slow),
                Route("/sets-cookie", self._sets_cookie),
                Route("/{path:path}", self._note, methods=["GET", "POST", "PUT", "DELETE"]),
            ]
        )

    async def _note(self, request: Request) -> Response:
        body = await request.body()
        self.requests.append(
            {
                "method": request.method,
                "target": request.scope["raw_path"].decode(),
                "query": request.scope["query_string"].decode(),
                "headers": dict(request.headers),
                "body": body.decode(),
            }
        )
        return JSONResponse(self.answer or {"data": {"ok": True}})

    async def _slow(self, _request: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            yield "first"
            await self.may_end.wait()
            yield "last"

        return StreamingResponse(parts())

    async def _sets_cookie(self, _request: Request) -> Response:
        return PlainTextResponse("", headers={"Set-Cookie": "a=b", "X-Frame-Options": "ALLOWALL"})

    async def _subscribe(self, websocket: WebSocket) -> None:
        self.sockets += 1
        await websocket.accept(subprotocol="graphql-ws")
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                message = json.loads(await websocket.receive_text())
                self.messages.append({**message, "headers": dict(websocket.headers)})
                if message["type"] == "connection_init":
                    await websocket.send_json({"type": "connection_ack"})
                elif message["type"] == "start":
                    data = {"data": {"event": 1}}
                    await websocket.send_json(
                        {"type": "data", "id": message["id"], "payload": data}
                    )
        self.sockets -= 1


@contextlib.asynccontextmanager
async def running_webserver(path: Path) -> AsyncIterator[Webserver]:
    """Serve it on a unix socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        webserver = Webserver(path)
        config = uvicorn.Config(
            webserver.app, log_config=None, access_log=False, lifespan="off",
            timeout_graceful_shutdown=3,
        )  # fmt: skip
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield webserver
        finally:
            webserver.may_end.set()
            server.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn as the stock webserver has it, without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
