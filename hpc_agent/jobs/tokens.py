"""Job tokens: made from the agent's secret and the job's key, so that no list of them is kept."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass

_SEPARATOR = ":"


@dataclass(frozen=True, slots=True)
class JobTokens:
    """Makes and checks job tokens (HMAC-SHA256, 256 bits)."""

    secret: bytes

    def token(self, key: str) -> str:
        """Return the token of a job."""
        digest = hmac.new(self.secret, key.encode(), hashlib.sha256).digest()
        return f"{key}{_SEPARATOR}{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"

    def key(self, token: str) -> str | None:
        """Return the key of the job that a token belongs to, or None when it is not ours."""
        key, _, _ = token.partition(_SEPARATOR)
        return key if hmac.compare_digest(token.encode(), self.token(key).encode()) else None
