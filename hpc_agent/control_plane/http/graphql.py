"""``POST /graphql``, with long polls for agents that ask for them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hpc_agent.control_plane.audit.entry import Actor, Outcome
from hpc_agent.control_plane.audit.mutations import entries_of
from hpc_agent.control_plane.documents import Mutation, mutations_of
from hpc_agent.control_plane.graphql.context import RequestContext
from hpc_agent.control_plane.graphql.executor import CACHED_DOCUMENTS, GraphQLExecutor
from hpc_agent.control_plane.graphql.operations import operation_of
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.http.webserver import (
    Webserver,
    in_deployment,
    is_for_webserver,
    role_of,
)
from hpc_agent.control_plane.roles import Role, check
from hpc_agent.control_plane.services import Services
from hpc_agent.control_plane.store.locations import DEFAULT_DEPLOYMENT
from hpc_agent.errors import ControlPlaneError, ControlPlaneRefusedError
from hpc_agent.inbound.errors import InputError, InputTooLargeError
from hpc_agent.inbound.graphql_request import GraphQLRequest
from hpc_agent.metrics.http import name_operation

MAX_WAIT_SECONDS = 300.0
FAILED_ALONE = "hpc-failed-workers-alone"
"""Of a heartbeat's run workers we act on those that failed, see heartbeats.py."""

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*(\d+)")


class GraphQLEndpoint:
    """Executes documents in worker threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._executor = GraphQLExecutor()
        self._is_foreign = lru_cache(CACHED_DOCUMENTS)(
            partial(is_for_webserver, self._executor.schema)
        )
        self._operation_of = lru_cache(CACHED_DOCUMENTS)(
            partial(operation_of, self._executor.schema)
        )
        self._webserver = Webserver(
            Home(Path(services.instance.root_directory)).webserver_socket, services.keys
        )

    async def __call__(self, request: Request) -> Response:
        try:
            asked = await asyncio.to_thread(GraphQLRequest.parse, await request.body())
            context = self._context(request)
            if context.token.role is None:
                return await self._execute(request, asked, context)
            return await self._for_user(request, asked, context, context.token.role)
        except InputError as error:
            status = 413 if isinstance(error, InputTooLargeError) else 400
            message = str(error).encode("utf-8", "replace").decode()
            return JSONResponse({"errors": [{"message": message}]}, status_code=status)

    async def _for_user(
        self, request: Request, asked: GraphQLRequest, context: RequestContext, role: Role
    ) -> Response:
        """Execute what the user's role allows, and note what changes something.

        An agent's token has no role: the agent API is for it.
        """
        peer = request.client.host if request.client else ""
        actor = Actor(name=context.token.name, role=role, way="token", peer=peer)
        mutations: Sequence[Mutation] = ()
        answer: object = None
        outcome: Outcome | None = Outcome.UNKNOWN
        try:
            mutations = await asyncio.to_thread(mutations_of, asked.document)
            check(role, [each.name for each in mutations])
            response = await self._execute(request, asked, context)
            if response.status_code == 200:
                answer, outcome = json.loads(bytes(response.body)) if mutations else None, None
            return response  # noqa: TRY300 the outcome is noted below
        except ControlPlaneRefusedError as error:
            outcome = Outcome.REFUSED
            return JSONResponse({"errors": [{"message": str(error)}]})
        finally:
            await self._services.audit.note(
                *entries_of(actor, mutations, asked.variables, answer=answer, outcome=outcome)
            )

    async def _execute(
        self, request: Request, asked: GraphQLRequest, context: RequestContext
    ) -> Response:
        if self._is_foreign(asked.document):
            name_operation(request.scope, "webserver")
            return await self._foreign(asked, context)
        name_operation(request.scope, self._operation_of(asked.document))
        preferred = request.headers.get("Prefer", "")
        wait = preferred_wait(preferred)
        if wait and "popUserCloudAgentRequests" in asked.document:
            return JSONResponse(await self._long_poll(request, asked, context, wait))
        answer = await asyncio.to_thread(self._executor.execute, asked, context)
        applied = {"Preference-Applied": FAILED_ALONE} if FAILED_ALONE in preferred else None
        return JSONResponse(answer, headers=applied)

    async def _foreign(self, asked: GraphQLRequest, context: RequestContext) -> Response:
        try:
            role = role_of(context.token)
            named = await asyncio.to_thread(
                in_deployment, asked, partial(self._face_name, context.deployment)
            )
            answer = await self._webserver.execute(named, role, context.idempotency_key)
        except ControlPlaneError as error:
            status = 503 if error.retryable else 200
            return JSONResponse({"errors": [{"message": str(error)}]}, status_code=status)
        return JSONResponse(answer)

    def _face_name(self, deployment: str, location: str) -> str:
        found = self._services.locations.get(deployment, location)
        return found.face_name if found else location

    async def _long_poll(
        self, request: Request, asked: GraphQLRequest, context: RequestContext, wait: float
    ) -> dict[str, Any]:
        """Answer as soon as there is work, or after ``wait`` seconds (RFC 7240, section 4.3)."""
        deadline = time.monotonic() + wait
        while True:
            news = asyncio.create_task(
                self._services.queue.wait_for_request(max(deadline - time.monotonic(), 0.0))
            )
            try:
                await asyncio.sleep(0)  # let the task look at the queue before we do
                response = await asyncio.to_thread(self._executor.execute, asked, context)
                if not _is_empty_poll(response) or time.monotonic() >= deadline:
                    return response
                await news
            finally:
                news.cancel()
            if await request.is_disconnected():
                return response

    def _context(self, request: Request) -> RequestContext:
        headers = request.headers
        return RequestContext(
            services=self._services,
            token=request.scope["token"],
            deployment=headers.get("Dagster-Cloud-Deployment", DEFAULT_DEPLOYMENT),
            agent_id=headers.get("X-Hpc-Agent-Id"),
            idempotency_key=headers.get("Idempotency-Key"),
            polls_anew=headers.get("X-Hpc-Poll") == "anew",
        )


def preferred_wait(header: str) -> float:
    """Return the seconds of ``Prefer: wait=N``, bounded; 0 without it."""
    match = _WAIT.search(header)
    return min(float(match.group(1)), MAX_WAIT_SECONDS) if match else 0.0


def _is_empty_poll(response: dict[str, Any]) -> bool:
    agent = (response.get("data") or {}).get("userCloudAgent") or {}
    return agent.get("popUserCloudAgentRequests") == []
