"""The HTTP face of the relay: the agent API for jobs, and the jobs' own reports."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hpc_agent.errors import (
    ControlPlaneRefusedError,
    ControlPlaneUnavailableError,
    HpcAgentError,
    StoreError,
)
from hpc_agent.inbound.graphql_request import GraphQLRequest
from hpc_agent.inbound.json_text import loads
from hpc_agent.metrics.agent import RELAY
from hpc_agent.metrics.http import Measured
from hpc_agent.metrics.meter import SILENT, Meter
from hpc_agent.outgoing.graphql_answer import lacking
from hpc_agent.outgoing.http_client import read_whole
from hpc_agent.relay.bodies import Bodies, read_body, understood
from hpc_agent.relay.delivery import Delivery
from hpc_agent.relay.documents import calls
from hpc_agent.relay.event_writes import (
    EventWrite,
    acknowledgement,
    is_event_write,
    is_read,
    storable_body,
)
from hpc_agent.relay.gate import REPORT_PATH, Gate
from hpc_agent.relay.identity import (
    IDEMPOTENCY_HEADER,
    TOKEN_HEADER,
    JobDirectory,
    JobIdentity,
    JobReport,
    OnReport,
)
from hpc_agent.relay.pools import PoolDesk, PoolRoutes
from hpc_agent.relay.refusals import Refusal, answer_refusal, unavailable
from hpc_agent.relay.requests import (
    JSON_TYPE,
    EventUpload,
    LogsQuery,
    StateQuery,
    headers_of,
)
from hpc_agent.relay.run_events import RunEvents
from hpc_agent.relay.steps import StepDesk, StepRoutes
from hpc_agent.relay.uploads import UPLOAD_PREFIX, real_url, rewritten
from hpc_agent.relay.upstream import Lacks, Upstream, is_no_answer

log = logging.getLogger(__name__)

_MOST_REPORT_BYTES = 1 << 20
_MOST_ADDRESS_BYTES = 1 << 20
LOOPBACK_HEADER = "X-Hpc-Loopback"

# Method, path with its query, headers and body: all of them the relay's own words.
_Asked = tuple[str, str, Mapping[str, str], bytes]

_PASSED_DOWN = ("content-encoding", "content-type", "content-length", "etag", "retry-after")


class RelayApp:
    """Builds the application; one instance per relay."""

    def __init__(
        self,
        *,
        directory: JobDirectory,
        upstream: Upstream,
        delivery: Delivery,
        on_report: OnReport,
        secret: bytes,
        patience_seconds: float,
        steps: StepDesk | None = None,
        run_events: RunEvents | None = None,
        pools: PoolDesk | None = None,
    ) -> None:
        self._gate = Gate(directory)
        self._bodies = Bodies()
        self._upstream = upstream
        self._delivery = delivery
        self._on_report = on_report
        self._secret = secret
        self._patience_seconds = patience_seconds
        self._steps = steps
        self._run_events = run_events
        self._pools = pools

    def build(self, meter: Meter = SILENT) -> Starlette:
        """Return the ASGI application; ``meter`` counts its requests."""
        return Starlette(
            routes=[
                Route("/graphql", self.graphql, methods=["POST"]),
                Route("/store_events", self.store_events, methods=["PUT", "POST"]),
                Route("/gen_logs_url", self.gen_logs_url, methods=["GET"]),
                Route("/gen_artifact_get", self.gen_artifact_url, methods=["POST"]),
                Route("/gen_artifact_post", self.gen_artifact_url, methods=["POST"]),
                Route(UPLOAD_PREFIX + "{signed}", self.upload, methods=["PUT", "POST", "GET"]),
                Route(REPORT_PATH, self.report, methods=["POST"]),
                *(
                    StepRoutes(self._gate, self._bodies, self._steps).routes()
                    if self._steps is not None
                    else ()
                ),
                *(
                    PoolRoutes(self._gate, self._bodies, self._pools).routes()
                    if self._pools is not None
                    else ()
                ),
            ],
            middleware=[Middleware(Measured, meter=meter, metrics=RELAY)],
            exception_handlers={
                Refusal: answer_refusal,
                404: _not_let_through,
                405: _not_let_through,
            },
        )

    async def graphql(self, request: Request) -> Response:
        """Forward a GraphQL document that the job's scope allows."""
        identity = await self._gate.identify(request)
        asked, body = await self._bodies.parsed(request, _graphql)
        wanted = understood(calls, asked.document)
        await self._gate.allow_calls(identity, wanted, asked.variables)
        headers = _headers(request, JSON_TYPE)
        if is_event_write(wanted):
            write = _event_write(identity, request, headers, body)
            return await self._deliver(identity, write, acknowledgement(wanted))
        # Anything else may have been carried out, whatever comes back.
        patient = IDEMPOTENCY_HEADER in request.headers or is_read(wanted)
        results = [call.result for call in wanted]
        answer = await self._open(
            identity,
            ("POST", "/graphql", headers, body),
            patient=patient,
            lacks=lambda content: lacking(content.get("data"), results),
        )
        return _streaming(answer)

    async def store_events(self, request: Request) -> Response:
        """Forward or spool a batch of events in Dagster's own JSON."""
        identity = await self._gate.identify(request)
        kind = request.headers.get("content-type", "")
        upload = await self._bodies.parsed(
            request, lambda body: EventUpload.parse(body, kind), is_packed=True
        )
        await self._gate.allow_events(identity, upload.runs)
        body, kind = await asyncio.to_thread(upload.written)
        write = _event_write(identity, request, _headers(request, kind), body)
        return await self._deliver(identity, write, {})

    async def gen_logs_url(self, request: Request) -> Response:
        """Ask for a pre-signed address and give the job one on its own loopback instead."""
        identity = await self._gate.identify(request)
        query = understood(LogsQuery.parse, request.query_params.multi_items())
        await self._gate.allow_logs(identity, query.key)
        return await self._presigned(
            identity, request, ("GET", query.path, _headers(request, None), b"")
        )

    async def gen_artifact_url(self, request: Request) -> Response:
        """Do the same for the state of state-backed components."""
        identity = await self._gate.identify(request)
        query = await self._bodies.parsed(request, StateQuery.parse)
        await self._gate.allow_state(identity, query.state_key)
        return await self._presigned(
            identity, request, ("POST", request.url.path, _headers(request, JSON_TYPE), query.body)
        )

    async def upload(self, request: Request) -> Response:
        """Stream a body to (or from) the pre-signed address that the path holds."""
        await self._gate.identify(request)
        url = real_url(request.url.path, token=request.headers[TOKEN_HEADER], secret=self._secret)
        if url is None:
            raise Refusal(403, "this upload address was not made by this relay for this job")
        headers = _selected(request.headers, ("content-type", "content-length", "content-encoding"))
        try:
            content = None if request.method == "GET" else _streamed(request)
            answer = await self._upstream.transfer(request.method, url, headers, content)
        except ControlPlaneUnavailableError as error:
            raise unavailable(str(error)) from error
        except ControlPlaneRefusedError as error:
            log.warning("%s", error)
            raise Refusal(403, str(error)) from error
        except ClientDisconnect:
            return Response(status_code=499)
        if is_no_answer(answer.status_code) and answer.status_code != 403:
            await answer.aclose()
            raise unavailable(f"the upload was answered with HTTP {answer.status_code}")
        return _streaming(answer)

    async def report(self, request: Request) -> Response:
        """Take a job's report of itself."""
        identity = await self._gate.identify(request)
        try:
            report = JobReport.model_validate_json(await read_body(request, _MOST_REPORT_BYTES))
        except ValidationError as error:
            raise Refusal(400, f"not a job report: {error}") from error
        try:
            answer = await self._on_report(identity, report)
        except HpcAgentError as error:
            raise unavailable(str(error)) from error
        return JSONResponse(answer.model_dump())

    async def _deliver(
        self, identity: JobIdentity, write: EventWrite, acknowledged: dict[str, Any]
    ) -> Response:
        try:
            answer = await self._delivery.deliver(write)
        except ControlPlaneRefusedError as error:
            raise Refusal(400, f"the control plane refuses these events: {error}") from error
        except StoreError as error:
            raise unavailable(str(error), retry_after=30) from error
        if answer is None:
            return JSONResponse(acknowledged)
        if self._run_events is not None:
            self._run_events.wrote(identity.run_id, identity.key)
        media_type = answer.headers.get("content-type")
        return Response(answer.content, answer.status_code, media_type=media_type)

    async def _presigned(self, identity: JobIdentity, request: Request, asked: _Asked) -> Response:
        answer = await self._open(identity, asked, patient=True, lacks=_lacks_an_address)
        try:
            if not answer.is_stream_consumed:
                answer = await read_whole(answer, most_bytes=_MOST_ADDRESS_BYTES)
        except httpx.HTTPError as error:
            raise unavailable(f"the control plane's answer cannot be read: {error!r}") from error
        finally:
            await answer.aclose()
        loopback = request.headers.get(LOOPBACK_HEADER, "")
        if answer.status_code != 200 or not loopback:
            media_type = answer.headers.get("content-type")
            return Response(answer.content, answer.status_code, media_type=media_type)
        token = request.headers[TOKEN_HEADER]
        return JSONResponse(
            rewritten(loads(answer.content), loopback=loopback, token=token, secret=self._secret)
        )

    async def _open(
        self,
        identity: JobIdentity,
        asked: _Asked,
        *,
        patient: bool,
        lacks: Lacks,
    ) -> httpx.Response:
        method, path, headers, body = asked
        try:
            return await self._upstream.open_patiently(
                method,
                path,
                deployment=identity.deployment,
                headers=headers,
                content=body,
                patience_seconds=self._patience_seconds if patient else 0.0,
                lacks=lacks,
            )
        except ControlPlaneUnavailableError as error:
            raise unavailable(str(error)) from error


def _lacks_an_address(content: Mapping[str, Any]) -> str:
    """Say that an answer names no pre-signed address; it may say that none is needed.

    ``skip_upload``: dagster_cloud/storage/compute_logs/compute_log_manager.py.
    """
    return "" if content.keys() & {"url", "skip_upload"} else "it lacks url"


def _graphql(body: bytes) -> tuple[GraphQLRequest, bytes]:
    """Read a request, and write it anew. Raises InputError."""
    asked = GraphQLRequest.parse(body)
    return asked, storable_body(asked.body)


def _headers(request: Request, content_type: str | None) -> dict[str, str]:
    return headers_of(request.headers, content_type=content_type)


def _event_write(
    identity: JobIdentity, request: Request, headers: dict[str, str], body: bytes
) -> EventWrite:
    key = headers.pop(IDEMPOTENCY_HEADER.lower(), None) or str(uuid.uuid4())
    return EventWrite(
        stream=identity.stream,
        idempotency_key=key,
        deployment=identity.deployment,
        method=request.method,
        path=request.url.path,
        headers=tuple(headers.items()),
        body=body,
    )


async def _streamed(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


def _streaming(answer: httpx.Response) -> Response:
    if answer.is_stream_consumed:  # it was looked at, and is not compressed any more
        kind = answer.headers.get("content-type")
        return Response(answer.content, answer.status_code, media_type=kind)

    async def content() -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                yield chunk
        finally:
            await answer.aclose()

    return StreamingResponse(
        content(),
        answer.status_code,
        headers=_selected(answer.headers, _PASSED_DOWN),
        background=BackgroundTask(answer.aclose),
    )


def _selected(headers: Headers | httpx.Headers, names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


async def _not_let_through(request: Request, _error: Exception) -> Response:
    return await answer_refusal(
        request,
        Refusal(403, f"{request.method} {request.url.path} is not let through: jobs need it not"),
    )
