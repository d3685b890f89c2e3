"""Addresses for uploads that carry their own permission: signed, and good for a while only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from hpc_agent.errors import ControlPlaneRefusedError

VALID_SECONDS = 3600.0


class UrlSigner:
    """Packs claims into a path segment ``PAYLOAD.SIGNATURE`` and checks them on the way back."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, claims: Mapping[str, Any], *, valid_seconds: float = VALID_SECONDS) -> str:
        payload = _encode(json.dumps({**claims, "expires": time.time() + valid_seconds}).encode())
        return f"{payload}.{self._signature(payload)}"

    def verify(self, segment: str) -> dict[str, Any]:
        """Return the claims. Raises ControlPlaneRefusedError when forged or expired."""
        payload, _, signature = segment.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(payload).encode()):
            raise ControlPlaneRefusedError("upload address is not one of ours")
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * 3))
        if claims["expires"] < time.time():
            raise ControlPlaneRefusedError("upload address has expired: ask for a new one")
        return claims

    def _signature(self, payload: str) -> str:
        return _encode(hmac.digest(self._key, payload.encode(), hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
