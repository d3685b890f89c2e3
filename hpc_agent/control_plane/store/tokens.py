"""API tokens: made once, stored as SHA-256 digests.

A token holds 256 random bits, so a plain digest is as good as a slow password hash: there is
nothing to guess.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from hpc_agent.control_plane.roles import Role
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import tokens

ORGANIZATION = "self-hosted"


class TokenKind(StrEnum):
    """What a token is for; the stock agent refuses to start with a user's token."""

    AGENT = "agent"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as stored: everything but the secret."""

    token_id: str
    name: str
    kind: TokenKind
    created_at: float
    revoked_at: float | None
    role: Role | None
    """Of a user; None for an agent, whose token is for the agent API alone."""


class Tokens:
    """The tokens of this control plane."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, kind: TokenKind, role: Role = Role.ADMIN) -> tuple[Token, str]:
        """Make a token and return it with its secret, which is shown this once.

        The form KIND:ORGANIZATION:HEX is what dagster_cloud/auth/constants.py decodes.
        """
        secret = f"{kind}:{ORGANIZATION}:{secrets.token_hex(32)}"
        token = Token(
            token_id=secrets.token_hex(4), name=name, kind=kind, created_at=time.time(),
            revoked_at=None, role=role if kind is TokenKind.USER else None,
        )  # fmt: skip
        with self._database.write() as connection:
            connection.execute(
                sa.insert(tokens).values(
                    token_id=token.token_id, name=name, kind=str(kind), digest=digest(secret),
                    created_at=token.created_at, role=token.role,
                )
            )  # fmt: skip
        return token, secret

    def all(self) -> list[Token]:
        with self._database.read() as connection:
            return [token_of(row) for row in connection.execute(_SELECT.order_by("created_at"))]

    def revoke(self, token_id: str) -> bool:
        """Revoke a token and tell whether there was a valid one with this id."""
        with self._database.write() as connection:
            changed = connection.execute(
                sa.update(tokens)
                .where(tokens.c.token_id == token_id, tokens.c.revoked_at.is_(None))
                .values(revoked_at=time.time())
            )
        return changed.rowcount > 0

    def find(self, secret_digest: str) -> Token | None:
        """Return the valid token with this digest."""
        query = _SELECT.where(tokens.c.digest == secret_digest, tokens.c.revoked_at.is_(None))
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return token_of(row) if row else None


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


COLUMNS = (
    tokens.c.token_id, tokens.c.name, tokens.c.kind, tokens.c.created_at, tokens.c.revoked_at,
    tokens.c.role,
)  # fmt: skip
_SELECT = sa.select(*COLUMNS)


def token_of(row: Any) -> Token:
    """Return the token in a row of COLUMNS."""
    return Token(
        token_id=row.token_id, name=row.name, kind=TokenKind(row.kind),
        created_at=row.created_at, revoked_at=row.revoked_at,
        role=Role(row.role) if row.role else _role_without(TokenKind(row.kind)),
    )  # fmt: skip


def _role_without(kind: TokenKind) -> Role | None:
    """Return what a token may that a gateway of an older release has made meanwhile."""
    return Role.ADMIN if kind is TokenKind.USER else None
