"""Sessions of the UI: who has logged in with which token, until when.

Kept here and not in the cookie, so that a logout, and the revocation of the token, end them at
once. A session's secret is stored as its digest, like a token's.
"""

from __future__ import annotations

import secrets
import time

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import tokens, ui_sessions
from hpc_agent.control_plane.store.tokens import COLUMNS, Token, digest, token_of

SESSION_SECONDS = 12 * 3600.0
SESSIONS_PER_TOKEN = 50


class Sessions:
    """The sessions that are open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, token_id: str) -> str:
        """Open a session and return its secret; a token's oldest ones give way."""
        secret, now = secrets.token_urlsafe(32), time.time()
        mine = (
            sa.select(ui_sessions.c.digest)
            .where(ui_sessions.c.token_id == token_id)
            .order_by(ui_sessions.c.created_at.desc())
            .offset(SESSIONS_PER_TOKEN)
            .limit(SESSIONS_PER_TOKEN)
        )
        with self._database.write() as connection:
            connection.execute(
                sa.insert(ui_sessions).values(
                    digest=digest(secret), token_id=token_id, created_at=now,
                    expires_at=now + SESSION_SECONDS,
                )
            )  # fmt: skip
            old = [row.digest for row in connection.execute(mine)]
            connection.execute(sa.delete(ui_sessions).where(ui_sessions.c.digest.in_(old)))
        return secret

    def find(self, secret: str) -> Token | None:
        """Return the valid token that the session was opened with."""
        query = (
            sa.select(*COLUMNS)
            .join(ui_sessions, ui_sessions.c.token_id == tokens.c.token_id)
            .where(
                ui_sessions.c.digest == digest(secret),
                ui_sessions.c.expires_at > time.time(),
                tokens.c.revoked_at.is_(None),
            )
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return token_of(row) if row else None

    def close(self, secret: str) -> None:
        with self._database.write() as connection:
            connection.execute(sa.delete(ui_sessions).where(ui_sessions.c.digest == digest(secret)))

    def sweep(self) -> None:
        """Forget those that have expired."""
        with self._database.write() as connection:
            connection.execute(
                sa.delete(ui_sessions).where(ui_sessions.c.expires_at <= time.time())
            )
