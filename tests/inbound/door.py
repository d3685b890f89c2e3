"""A small application behind a listener; ``python -m tests.inbound.door DIRECTORY`` serves it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from hpc_agent.inbound.callers import vouch
from hpc_agent.inbound.limits import Limits
from hpc_agent.inbound.listener import HTTP, Listener
from hpc_agent.inbound.websocket import WebSocketConnection
from hpc_agent.relay.certificate import Certificate, load_or_create
from hpc_agent.tls import server_context, tightened

STREAM = "stream/1"
GOOD = {"Token": "good"}


@dataclass(slots=True)
class Door:
    """A listener that is open, and what it has read."""

    port: int
    listener: Listener
    certificate: Certificate
    taken: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def trust(self, *protocols: str) -> ssl.SSLContext:
        context = tightened(ssl.create_default_context(cadata=self.certificate.pem))
        context.check_hostname = False
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    async def dial(
        self, *protocols: str, source: str = "127.0.0.1"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trust(*protocols), local_addr=(source, 0)
        )

    async def plain(self, source: str = "127.0.0.1") -> socket.socket:
        """Connect, and say nothing."""
        sock = socket.socket()
        sock.bind((source, 0))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return sock


@contextlib.asynccontextmanager
async def open_door(directory: Path, **settings: Any) -> AsyncIterator[Door]:
    """Listen on a free port; ``settings`` are Limits, and allow."""
    certificate = await asyncio.to_thread(load_or_create, directory, ["127.0.0.1"])
    allow = settings.pop("allow", ())
    taken: list[int] = []

    async def take(request: Request) -> Response:
        """Read the body of who has the token; "/careless" reads it of anybody."""
        is_known = request.headers.get("Token") == "good"
        if is_known:
            vouch(request.scope)
        if is_known or request.url.path == "/careless":
            taken.append(len(await request.body()))
        return PlainTextResponse("", 200 if is_known else 401)

    async def late(request: Request) -> Response:
        vouch(request.scope)
        taken.append(0)
        await asyncio.sleep(3)
        return PlainTextResponse("")

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text("more")
            await asyncio.sleep(0)

    async def refuse(request: Request) -> Response:
        vouch(request.scope)
        return PlainTextResponse("", 413)

    async def echo(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, welcome: Callable[[], None]
    ) -> None:
        if await reader.readline() == b"good\n":
            welcome()
            writer.write(b"+")
        else:
            writer.close()

    methods = ["GET", "POST"]
    app = Starlette(
        routes=[
            Route("/", take, methods=methods),
            Route("/careless", take, methods=methods),
            Route("/refuse", refuse, methods=methods),
            Route("/late", late),
            WebSocketRoute("/talk", talk),
        ]
    )
    listener = Listener(
        app,
        tls=server_context(certificate.certificate_file, certificate.key_file, [HTTP, STREAM]),
        limits=Limits(**settings),
        allow=allow,
        streams={STREAM: echo},
        upgrade=WebSocketConnection,
    )
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await listener.start(sock)
        try:
            yield Door(sock.getsockname()[1], listener, certificate, taken)
        finally:
            await listener.stop(1)


async def _serve(directory: Path, settings: dict[str, Any]) -> None:
    async with open_door(directory, **settings) as door:
        print(door.port, flush=True)
        held: list[int] = []
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def obey() -> None:
            """Take all descriptors for a line that says so, give them back for the next."""
            line = os.read(0, 64)
            if not line:
                ended.set()
            elif held:
                for each in held:
                    os.close(each)
                held.clear()
            else:
                with contextlib.suppress(OSError):
                    while True:
                        held.append(os.open("/dev/null", os.O_RDONLY))
            print(len(held), flush=True)

        loop.add_reader(0, obey)
        await ended.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(_serve(Path(sys.argv[1]), json.loads(sys.argv[2])))
