"""A visitor of the UI, and the ways to find out who it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from starlette.requests import HTTPConnection

from hpc_agent.control_plane.door.attempts import Attempts
from hpc_agent.control_plane.http.auth import TokenFinder, secret_in
from hpc_agent.control_plane.roles import Role
from hpc_agent.control_plane.store.sessions import Sessions
from hpc_agent.control_plane.store.tokens import Token

# The prefix makes browsers insist on Secure, on Path=/ and on no Domain.
SESSION_COOKIE = "__Host-hpc-agent-session"


class Way(StrEnum):
    """How a visitor has shown who it is."""

    SESSION = "session"
    TOKEN = "token"  # noqa: S105 a word
    PROXY = "proxy"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Somebody who was let in; ``name`` is the token's, or what the proxy says."""

    name: str
    role: Role
    way: Way

    @property
    def must_show_origin(self) -> bool:
        """Whether a browser sends what lets it in by itself, whoever has made it ask."""
        return self.way in {Way.SESSION, Way.PROXY}


class Recognition(Protocol):
    """Finds out who asks."""

    async def visitor(self, connection: HTTPConnection) -> Visitor | None:
        """Return who it is, or None. Raises TooManyAttemptsError."""


class ByToken:
    """Lets in who has logged in with a user's token, or sends one with each request."""

    def __init__(self, finder: TokenFinder, sessions: Sessions, attempts: Attempts) -> None:
        self._finder = finder
        self._sessions = sessions
        self._attempts = attempts

    async def visitor(self, connection: HTTPConnection) -> Visitor | None:
        if secret := secret_in(connection.headers):
            with self._attempts.one(peer_of(connection)) as attempt:
                found = await self._finder.find(secret)
                if found is not None:
                    attempt.succeed()
            return _visitor(found, Way.TOKEN)
        if session := connection.cookies.get(SESSION_COOKIE):
            return _visitor(await asyncio.to_thread(self._sessions.find, session), Way.SESSION)
        return None


class Anybody:
    """Lets everybody in who can connect: a loopback listener of a machine with one user."""

    async def visitor(self, connection: HTTPConnection) -> Visitor | None:
        return Visitor(name="anybody", role=Role.ADMIN, way=Way.OPEN)


def peer_of(connection: HTTPConnection) -> str:
    """Return the address at the other end; "" over a unix socket."""
    return connection.client.host if connection.client else ""


def _visitor(token: Token | None, way: Way) -> Visitor | None:
    """Return the user of a token; an agent's opens no door."""
    if token is None or token.role is None:
        return None
    return Visitor(name=token.name, role=token.role, way=way)
