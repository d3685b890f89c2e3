"""``/graphql``: documents are read, judged by what they would change, and sent on made anew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from hpc_agent.control_plane.audit.entry import Outcome
from hpc_agent.control_plane.audit.log import AuditLog
from hpc_agent.control_plane.audit.mutations import entries_of
from hpc_agent.control_plane.documents import Mutation, mutations_of
from hpc_agent.control_plane.door.gate import visitor_of
from hpc_agent.control_plane.door.proxy import NOT_UP, streamed
from hpc_agent.control_plane.door.upstream import Upstream, returned
from hpc_agent.control_plane.roles import RoleLackingError, check
from hpc_agent.errors import ControlPlaneRefusedError
from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.graphql_request import GraphQLRequest

JSON = "application/json"


class GraphQLDoor:
    """ASGI application for HTTP; subscriptions.py is for websockets."""

    def __init__(self, upstream: Upstream, audit: AuditLog) -> None:
        self._upstream = upstream
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method != "POST":
            await self._page(request, send)
            return
        try:
            asked = await _read(request)
            mutations = await asyncio.to_thread(mutations_of, asked.document)
        except (ControlPlaneRefusedError, InputError) as error:
            await refused(str(error), 400)(scope, receive, send)
            return
        try:
            if mutations:
                await (await self._change(request, asked, mutations))(scope, receive, send)
            else:
                async with self._answer(request, asked) as answer:
                    await streamed(answer)(scope, receive, send)
        except httpx.TransportError:
            await NOT_UP(scope, receive, send)

    async def _change(
        self, request: Request, asked: GraphQLRequest, mutations: Sequence[Mutation]
    ) -> Response:
        """Send on what changes something, and note it. Raises httpx.TransportError."""
        visitor = visitor_of(request)
        found: object = None
        outcome: Outcome | None = Outcome.UNKNOWN
        try:
            check(visitor.role, [each.name for each in mutations])
            async with self._answer(request, asked) as answer:
                content = await answer.aread()
                found, outcome = _parsed(content), None
                response = Response(content, answer.status_code)
                response.raw_headers = returned(answer.headers)
                return response
        except RoleLackingError as error:
            outcome = Outcome.REFUSED
            return refused(str(error), 403)
        except httpx.ConnectError:
            outcome = Outcome.FAILED
            raise
        finally:
            await self._audit.note(
                *entries_of(
                    visitor.actor, mutations, asked.variables, answer=found, outcome=outcome
                )
            )

    def _answer(
        self, request: Request, asked: GraphQLRequest
    ) -> AbstractAsyncContextManager[httpx.Response]:
        return self._upstream.answer(
            request, "POST", path="/graphql", content=asked.body, content_type=JSON
        )

    async def _page(self, request: Request, send: Send) -> None:
        """Show GraphiQL. A document in the address would be executed, mutations too: it is not."""
        if request.method not in {"GET", "HEAD"} or request.query_params:
            response = refused("a GraphQL document is sent as JSON by POST", 405)
            await response(request.scope, request.receive, send)
            return
        async with self._upstream.answer(request, request.method, path="/graphql") as answer:
            await streamed(answer)(request.scope, request.receive, send)


def refused(message: str, status: int) -> Response:
    """Return a refusal in the words of GraphQL."""
    words = message.encode("utf-8", "replace").decode()  # it may quote what was asked
    return JSONResponse({"errors": [{"message": words}]}, status_code=status)


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None


async def _read(request: Request) -> GraphQLRequest:
    # A page of another site can post forms and text, but not this type without asking first.
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != JSON:
        raise InputError(f"the body must be {JSON}")
    return await asyncio.to_thread(GraphQLRequest.parse, await request.body())
