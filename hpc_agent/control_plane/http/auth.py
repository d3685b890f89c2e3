"""Who asks: tokens in ``Dagster-Cloud-Api-Token`` or ``Authorization: Bearer``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hpc_agent.control_plane.roles import Role
from hpc_agent.control_plane.signed_urls import UrlSigner
from hpc_agent.control_plane.store.tokens import Token, Tokens, digest
from hpc_agent.errors import ControlPlaneRefusedError
from hpc_agent.inbound.callers import vouch
from hpc_agent.journal.about import Fields, note
from hpc_agent.metrics.gateway import AUTHENTICATION_FAILURES
from hpc_agent.metrics.meter import SILENT, Meter

API_TOKEN_HEADER = "Dagster-Cloud-Api-Token"  # noqa: S105 a header's name
REMEMBERED_SECONDS = 5.0
"""A revoked token works for at most this long: the price of not asking the database each time."""

GRAPHQL_PATH = "/graphql"
"""Where roles are judged by what a document asks for, see graphql.py."""

SIGNED_PATHS = ("/uploads/", "/artifacts/")
"""An address below these is its own permission, see signed_urls.py."""

PUBLIC_PATHS = ("/healthz", *SIGNED_PATHS)


class TokenFinder:
    """Finds the token of a secret; the event loop's side of the store."""

    def __init__(self, tokens: Tokens, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens = tokens
        self._clock = clock
        self._known: dict[str, tuple[float, Token]] = {}

    async def find(self, secret: str) -> Token | None:
        # Looked up by digest: how long that takes tells nothing of the secret.
        secret_digest = digest(secret)
        until, token = self._known.get(secret_digest, (0.0, None))
        if token is not None and until > self._clock():
            return token
        found = await asyncio.to_thread(self._tokens.find, secret_digest)
        if found is None:
            self._known.pop(secret_digest, None)
        else:
            self._known[secret_digest] = (self._clock() + REMEMBERED_SECONDS, found)
        return found


class Authentication:
    """ASGI middleware: puts the token into ``scope["token"]``, or answers 401.

    No body is read of who is not vouched for (hpc_agent/inbound/callers.py).
    """

    def __init__(
        self, app: ASGIApp, finder: TokenFinder, signer: UrlSigner, meter: Meter = SILENT
    ) -> None:
        self._app = app
        self._finder = finder
        self._signer = signer
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(PUBLIC_PATHS):
            if self._is_signed(scope):
                vouch(scope)
            await self._app(scope, receive, send)
            return
        secret = secret_in(Request(scope).headers)
        token = await self._finder.find(secret) if secret else None
        if token is None:
            self._turned_away("unknown_token" if secret else "no_token")
            message = (
                f"no valid token in {API_TOKEN_HEADER}: make one with "
                "`hpc-agent control-plane token create`"
            )
            await JSONResponse({"error": message}, status_code=401)(scope, receive, send)
            return
        if token.role not in {None, Role.ADMIN} and scope["path"] != GRAPHQL_PATH:
            self._turned_away("role")
            message = f"your role is {token.role}: this path is for agents and admins"
            await JSONResponse({"error": message}, status_code=403)(scope, receive, send)
            return
        scope["token"] = token
        vouch(scope)
        note(_fields_of(Request(scope).headers))
        await self._app(scope, receive, send)

    def _turned_away(self, reason: str) -> None:
        self._meter.count(AUTHENTICATION_FAILURES, "api", reason)

    def _is_signed(self, scope: Scope) -> bool:
        """Whether the path is an address of ours; what it permits is the endpoint's business."""
        _, _, segment = scope.get("path", "")[1:].partition("/")
        try:
            self._signer.verify(segment)
        except ControlPlaneRefusedError:
            return False
        return True


def _fields_of(headers: Headers) -> Fields:
    """Return what lines of the log about a request carry."""
    return {
        "deployment": headers.get("Dagster-Cloud-Deployment"),
        "agent_id": headers.get("X-Hpc-Agent-Id"),
    }


def secret_in(headers: Headers) -> str | None:
    """Return the secret that a request brings."""
    if secret := headers.get(API_TOKEN_HEADER):
        return secret
    scheme, _, secret = headers.get("Authorization", "").partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None
