"""A visitor of the UI, and the ways to find out who it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from starlette.requests import HTTPConnection

from hpc_agent.control_plane.audit.entry import Action, Actor, Entry, Outcome
from hpc_agent.control_plane.audit.log import AuditLog
from hpc_agent.control_plane.door.attempts import Attempts
from hpc_agent.control_plane.http.auth import TokenFinder, secret_in
from hpc_agent.control_plane.roles import Role
from hpc_agent.control_plane.store.sessions import Sessions
from hpc_agent.control_plane.store.tokens import Token
from hpc_agent.metrics.gateway import AUTHENTICATION_FAILURES
from hpc_agent.metrics.meter import SILENT, Meter

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
    peer: str

    @property
    def actor(self) -> Actor:
        """Return who it is for the audit log."""
        return Actor(name=self.name, role=self.role, way=self.way, peer=self.peer)

    @property
    def must_show_origin(self) -> bool:
        """Whether a browser sends what lets it in by itself, whoever has made it ask."""
        return self.way in {Way.SESSION, Way.PROXY}


class Recognition(Protocol):
    """Finds out who asks."""

    async def visitor(self, connection: HTTPConnection) -> Visitor | None:
        """Return who it is, or None. Raises TooManyAttemptsError."""


class UserTokens:
    """Finds the user of a secret, as often as a peer may show a wrong one, and notes wrong ones."""

    def __init__(
        self, finder: TokenFinder, audit: AuditLog, attempts: Attempts, meter: Meter = SILENT
    ) -> None:
        self._finder = finder
        self._audit = audit
        self._attempts = attempts
        self._meter = meter

    async def user_of(self, secret: str, way: Way, peer: str) -> Token | None:
        """Return a user's token; an agent's opens no door. Raises TooManyAttemptsError."""
        with self._attempts.one(peer) as attempt:
            found = await self._finder.find(secret)
            if found is not None and found.role is not None:
                attempt.succeed()
                return found
        self._meter.count(AUTHENTICATION_FAILURES, "ui", "role" if found else "unknown_token")
        # At most as many lines as a peer has attempts: nobody washes older lines out of the log.
        known = found.name if found else "nobody"
        actor = Actor(name=known, role=None, way=way, peer=peer)
        what = "an agent's token" if found else "a wrong token"
        await self._audit.note(
            Entry(action=Action.LOGIN, actor=actor, what=what, outcome=Outcome.FAILED)
        )
        return None


class ByToken:
    """Lets in who has logged in with a user's token, or sends one with each request."""

    def __init__(self, users: UserTokens, sessions: Sessions) -> None:
        self._users = users
        self._sessions = sessions

    async def visitor(self, connection: HTTPConnection) -> Visitor | None:
        peer = peer_of(connection)
        if secret := secret_in(connection.headers):
            return visitor_with(await self._users.user_of(secret, Way.TOKEN, peer), Way.TOKEN, peer)
        if session := connection.cookies.get(SESSION_COOKIE):
            found = await asyncio.to_thread(self._sessions.find, session)
            return visitor_with(found, Way.SESSION, peer)
        return None


class Anybody:
    """Lets everybody in who can connect: a loopback listener of a machine with one user."""

    async def visitor(self, connection: HTTPConnection) -> Visitor | None:
        return Visitor(name="anybody", role=Role.ADMIN, way=Way.OPEN, peer=peer_of(connection))


def peer_of(connection: HTTPConnection) -> str:
    """Return the address at the other end; "" over a unix socket."""
    return connection.client.host if connection.client else ""


def visitor_with(token: Token | None, way: Way, peer: str) -> Visitor | None:
    """Return the visitor who has a token; only a user's has a role."""
    if token is None or token.role is None:
        return None
    return Visitor(name=token.name, role=token.role, way=way, peer=peer)
