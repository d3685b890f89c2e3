"""The HTTP face of the relay: the agent API for jobs, and the jobs' own reports."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hpc_agent.errors import (
    ControlPlaneRefusedError,
    ControlPlaneUnavailableError,
    HpcAgentError,
    StoreError,
)
from hpc_agent.inbound.callers import vouch
from hpc_agent.outgoing.graphql_answer import lacking
from hpc_agent.relay import scope
from hpc_agent.relay.delivery import Delivery
from hpc_agent.relay.documents import calls
from hpc_agent.relay.event_writes import (
    EventWrite,
    acknowledgement,
    is_event_write,
    is_read,
    storable_body,
)
from hpc_agent.relay.identity import (
    IDEMPOTENCY_HEADER,
    RESTART_HEADER,
    TOKEN_HEADER,
    JobDirectory,
    JobIdentity,
    JobReport,
    OnReport,
)
from hpc_agent.relay.refusals import Refusal, answer_refusal, unavailable
from hpc_agent.relay.uploads import UPLOAD_PREFIX, real_url, rewritten
from hpc_agent.relay.upstream import Lacks, Upstream, is_no_answer

MAX_BODY_BYTES = 16 << 20
LOOPBACK_HEADER = "X-Hpc-Loopback"
_REPORT_PATH = "/_hpc/report"

# What a job's request may tell the control plane; everything else is the relay's to say.
_PASSED_UP = (
    "accept",
    "accept-encoding",
    "content-type",
    "dagster-cloud-metric",
    "dagster-cloud-version",
    "idempotency-key",
    "python-version",
    "user-agent",
    "x-event-write",
)
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
    ) -> None:
        self._directory = directory
        self._upstream = upstream
        self._delivery = delivery
        self._on_report = on_report
        self._secret = secret
        self._patience_seconds = patience_seconds

    def build(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/graphql", self.graphql, methods=["POST"]),
                Route("/store_events", self.store_events, methods=["PUT", "POST"]),
                Route("/gen_logs_url", self.gen_logs_url, methods=["GET"]),
                Route("/gen_artifact_get", self.gen_artifact_url, methods=["POST"]),
                Route("/gen_artifact_post", self.gen_artifact_url, methods=["POST"]),
                Route(UPLOAD_PREFIX + "{signed}", self.upload, methods=["PUT", "POST", "GET"]),
                Route(_REPORT_PATH, self.report, methods=["POST"]),
            ],
            exception_handlers={
                Refusal: answer_refusal,
                404: _not_let_through,
                405: _not_let_through,
            },
        )

    async def graphql(self, request: Request) -> Response:
        """Forward a GraphQL document that the job's scope allows."""
        identity = await self._identify(request)
        document, variables = _parse(await _body(request))
        reason = scope.document_refusal(identity, document, variables)
        if reason is not None:
            raise Refusal(403, reason)
        # Written anew, so that what was checked is what is sent, however the control plane reads
        # repeated JSON names.
        body = json.dumps({"query": document, "variables": variables}).encode()
        wanted = calls(document)
        if is_event_write(wanted):
            write = _event_write(identity, request, storable_body(body))
            return await self._deliver(write, acknowledgement(wanted))
        # Anything else may have been carried out, whatever comes back.
        patient = IDEMPOTENCY_HEADER in request.headers or is_read(wanted)
        results = [call.result for call in wanted]
        answer = await self._open(
            identity,
            request,
            body,
            patient=patient,
            lacks=lambda content: lacking(content.get("data"), results),
        )
        return _streaming(answer)

    async def store_events(self, request: Request) -> Response:
        """Forward or spool a batch of events in Dagster's own JSON."""
        identity = await self._identify(request)
        body = await _body(request)
        reason = scope.upload_refusal(identity, body, request.headers.get("content-type", ""))
        if reason is not None:
            raise Refusal(403, reason)
        return await self._deliver(_event_write(identity, request, body), {})

    async def gen_logs_url(self, request: Request) -> Response:
        """Ask for a pre-signed address and give the job one on its own loopback instead."""
        identity = await self._identify(request)
        reason = scope.logs_refusal(identity, request.query_params.multi_items())
        if reason is not None:
            raise Refusal(403, reason)
        return await self._presigned(identity, request, b"")

    async def gen_artifact_url(self, request: Request) -> Response:
        """Do the same for the state of state-backed components."""
        identity = await self._identify(request)
        body = await _body(request)
        reason = scope.artifact_refusal(body)
        if reason is not None:
            raise Refusal(403, reason)
        return await self._presigned(identity, request, body)

    async def upload(self, request: Request) -> Response:
        """Stream a body to (or from) the pre-signed address that the path holds."""
        await self._identify(request)
        url = real_url(request.url.path, token=request.headers[TOKEN_HEADER], secret=self._secret)
        if url is None:
            raise Refusal(403, "this upload address was not made by this relay for this job")
        headers = _selected(request.headers, ("content-type", "content-length", "content-encoding"))
        try:
            content = None if request.method == "GET" else _streamed(request)
            answer = await self._upstream.transfer(request.method, url, headers, content)
        except ControlPlaneUnavailableError as error:
            raise unavailable(str(error)) from error
        except ClientDisconnect:
            return Response(status_code=499)
        if is_no_answer(answer.status_code) and answer.status_code != 403:
            await answer.aclose()
            raise unavailable(f"the upload was answered with HTTP {answer.status_code}")
        return _streaming(answer)

    async def report(self, request: Request) -> Response:
        """Take a job's report of itself."""
        identity = await self._identify(request)
        try:
            report = JobReport.model_validate_json(await _body(request))
        except ValidationError as error:
            raise Refusal(400, f"not a job report: {error}") from error
        try:
            answer = await self._on_report(identity, report)
        except HpcAgentError as error:
            raise unavailable(str(error)) from error
        return JSONResponse(answer.model_dump())

    async def _identify(self, request: Request) -> JobIdentity:
        try:
            identity = await self._directory.identify(request.headers.get(TOKEN_HEADER, ""))
        except HpcAgentError as error:
            raise unavailable(str(error)) from error
        if identity is None:
            raise Refusal(401, "no job of this agent has this token")
        start = request.headers.get(RESTART_HEADER, "")
        if start.isdigit() and int(start) < identity.restart_count:
            raise Refusal(401, "a later start of this job has taken its place")
        if identity.is_over and request.url.path != _REPORT_PATH:
            raise Refusal(401, "this job has ended")
        vouch(request.scope)
        return identity

    async def _deliver(self, write: EventWrite, acknowledged: dict[str, Any]) -> Response:
        try:
            answer = await self._delivery.deliver(write)
        except ControlPlaneRefusedError as error:
            raise Refusal(400, f"the control plane refuses these events: {error}") from error
        except StoreError as error:
            raise unavailable(str(error), retry_after=30) from error
        if answer is None:
            return JSONResponse(acknowledged)
        media_type = answer.headers.get("content-type")
        return Response(answer.content, answer.status_code, media_type=media_type)

    async def _presigned(self, identity: JobIdentity, request: Request, body: bytes) -> Response:
        answer = await self._open(identity, request, body, patient=True, lacks=_lacks_an_address)
        try:
            content = await answer.aread()
        except httpx.HTTPError as error:
            raise unavailable(f"the control plane's answer broke off: {error!r}") from error
        finally:
            await answer.aclose()
        loopback = request.headers.get(LOOPBACK_HEADER, "")
        if answer.status_code != 200 or not loopback:
            media_type = answer.headers.get("content-type")
            return Response(content, answer.status_code, media_type=media_type)
        token = request.headers[TOKEN_HEADER]
        return JSONResponse(
            rewritten(answer.json(), loopback=loopback, token=token, secret=self._secret)
        )

    async def _open(
        self,
        identity: JobIdentity,
        request: Request,
        body: bytes,
        *,
        patient: bool,
        lacks: Lacks,
    ) -> httpx.Response:
        query = request.url.query
        path = request.url.path + (f"?{query}" if query else "")
        try:
            return await self._upstream.open_patiently(
                request.method,
                path,
                deployment=identity.deployment,
                headers=_selected(request.headers, _PASSED_UP),
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


def _parse(body: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        content = json.loads(body)
    except ValueError as error:
        raise Refusal(400, f"the request is not JSON: {error}") from error
    document = content.get("query") if isinstance(content, dict) else None
    variables = (content.get("variables") or {}) if isinstance(content, dict) else None
    if not isinstance(document, str) or not isinstance(variables, dict):
        raise Refusal(400, "the request is not a single GraphQL request")
    return document, variables


def _event_write(identity: JobIdentity, request: Request, body: bytes) -> EventWrite:
    headers = _selected(request.headers, _PASSED_UP)
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


async def _body(request: Request) -> bytes:
    """Read a whole body of at most MAX_BODY_BYTES."""
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise Refusal(413, f"the request is larger than {MAX_BODY_BYTES >> 20} MiB")
        parts.append(chunk)
    return b"".join(parts)


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
