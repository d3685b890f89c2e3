"""While maintenance is on, every call is answered with what makes the stock client wait.

``dagster_cloud_cli/core/graphql_client.py`` looks for ``maintenance`` in the body before anything
else and tries again every ``retry_interval`` seconds for ``timeout`` seconds; what goes through
requests' own retries obeys 503 and Retry-After.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hpc_agent.control_plane.store.maintenance import Maintenance, MaintenanceSwitch

REMEMBERED_SECONDS = 0.5
RETRY_INTERVAL_SECONDS = 5
MARGIN_SECONDS = 3600
"""Clients go on trying for this long after the announced end."""

OPEN_PATHS = ("/healthz",)


class MaintenanceGate:
    """ASGI middleware: lets calls through unless an operator has switched maintenance on."""

    def __init__(
        self,
        app: ASGIApp,
        switch: MaintenanceSwitch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._switch = switch
        self._clock = clock
        self._current: Maintenance | None = None
        self._good_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        maintenance = await self._look()
        if maintenance is None:
            await self._app(scope, receive, send)
        else:
            await _told(maintenance)(scope, receive, send)

    async def _look(self) -> Maintenance | None:
        if self._clock() >= self._good_until:
            self._good_until = self._clock() + REMEMBERED_SECONDS
            self._current = await asyncio.to_thread(self._switch.current)
        return self._current


def _told(maintenance: Maintenance) -> JSONResponse:
    remaining = None
    if maintenance.until is not None:
        remaining = max(int(maintenance.until - time.time()), 0) + MARGIN_SECONDS
    body = {
        "message": maintenance.message,
        "timeout": remaining,
        "retry_interval": RETRY_INTERVAL_SECONDS,
    }
    headers = {"Retry-After": str(RETRY_INTERVAL_SECONDS)}
    return JSONResponse({"maintenance": body}, status_code=503, headers=headers)
