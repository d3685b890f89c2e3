"""A door over a small webserver, on real sockets with TLS, and visitors of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from hpc_agent.control_plane.audit.log import AuditLog
from hpc_agent.control_plane.audit.reader import read_entries
from hpc_agent.control_plane.door.app import DoorParts, limits_for, make_door
from hpc_agent.control_plane.door.attempts import Attempts
from hpc_agent.control_plane.door.login import LoginPages
from hpc_agent.control_plane.door.origin import Hosts
from hpc_agent.control_plane.door.upstream import Upstream
from hpc_agent.control_plane.door.visitor import ByToken, Recognition, UserTokens
from hpc_agent.control_plane.http.auth import TokenFinder
from hpc_agent.control_plane.roles import Role
from hpc_agent.control_plane.server import bind, serve
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.sessions import Sessions
from hpc_agent.control_plane.store.tokens import TokenKind, Tokens
from hpc_agent.control_plane.tls import ServerTls, generated_certificate, names_in
from hpc_agent.inbound.limits import Limits
from hpc_agent.inbound.websocket import WebSocketConnection
from tests.control_plane.door.upstream import Webserver, running_webserver

PAGE = {"Accept": "text/html,*/*"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A door that listens, and what is behind it."""

    url: str
    trust: ssl.SSLContext
    webserver: Webserver
    tokens: Tokens
    sessions: Sessions
    audit_log: Path

    def audited(self) -> list[dict[str, Any]]:
        """Return the audit log."""
        return list(read_entries(self.audit_log))

    def client(self, address: str | None = None) -> httpx.AsyncClient:
        """Return a browser without a session, maybe from another address of loopback."""
        transport = httpx.AsyncHTTPTransport(verify=self.trust, local_address=address)
        return httpx.AsyncClient(base_url=self.url, transport=transport, trust_env=False)

    def token(self, role: Role = Role.ADMIN, name: str = "someone") -> str:
        return self.tokens.create(name, TokenKind.USER, role)[1]

    @contextlib.asynccontextmanager
    async def script(self, role: Role = Role.ADMIN) -> AsyncIterator[httpx.AsyncClient]:
        """Hold a client that sends a token with each request."""
        async with self.client() as client:
            client.headers["Authorization"] = f"Bearer {self.token(role)}"
            yield client

    @contextlib.asynccontextmanager
    async def browser(self, role: Role = Role.ADMIN) -> AsyncIterator[httpx.AsyncClient]:
        """Hold a client that has logged in, and sends what a browser sends."""
        async with self.client() as client:
            client.headers["Origin"] = self.url
            answer = await client.post("/login", data={"token": self.token(role)})
            assert answer.status_code == 303
            yield client


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """The gateway's tables, without Dagster's."""
    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'gateway.db'}")) as opened:
        yield opened


@pytest_asyncio.fixture
async def webserver(tmp_path: Path) -> AsyncIterator[Webserver]:
    """What is behind the door."""
    async with running_webserver(tmp_path / "w.sock") as running:
        yield running


@pytest.fixture
def tls(tmp_path: Path) -> ServerTls:
    """A certificate for this machine."""
    (tmp_path / "tls").mkdir()
    return generated_certificate(tmp_path / "tls", "127.0.0.1")


@pytest_asyncio.fixture
async def setting(
    database: Database, webserver: Webserver, tls: ServerTls
) -> AsyncIterator[Setting]:
    """A door in token mode."""
    audit = AuditLog(webserver.socket.with_name("audit.log"))
    users = UserTokens(TokenFinder(Tokens(database)), audit, Attempts())
    sessions = Sessions(database)
    async with open_setting(
        database, webserver, tls, ByToken(users, sessions), LoginPages(users, sessions, audit)
    ) as opened:
        yield opened


@contextlib.asynccontextmanager
async def open_setting(
    database: Database,
    webserver: Webserver,
    tls: ServerTls,
    recognition: Recognition,
    login: LoginPages | None = None,
    *,
    limits: Limits | None = None,
) -> AsyncIterator[Setting]:
    """Serve a door on a free port."""
    upstream = Upstream(webserver.socket)
    path = webserver.socket.with_name("audit.log")
    audit = AuditLog(path)
    parts = DoorParts(
        upstream=upstream, hosts=Hosts(names_in(tls.certificate)), recognition=recognition,
        login=login, audit=audit, recheck_seconds=0.1, websockets_per_visitor=3,
    )  # fmt: skip
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        held_out = limits or limits_for(behind_proxy=False)
        serving = asyncio.create_task(
            serve(make_door(parts), listener, tls, held_out, WebSocketConnection)
        )
        try:
            yield Setting(
                url=url, trust=ssl.create_default_context(cafile=str(tls.ca)),
                webserver=webserver, tokens=Tokens(database), sessions=Sessions(database),
                audit_log=path,
            )  # fmt: skip
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await upstream.close()
