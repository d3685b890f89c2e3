"""The REST half of the agent API: answers, definitions, events and compute logs come in here."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from dagster._core.definitions.selector import JobSelector
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster_cloud.api.dagster_cloud_api import (
    BatchDagsterCloudUploadApiResponse,
    CheckSnapshotResult,
    ConfirmUploadResult,
    DagsterCloudCodeLocationUpdateResponse,
    DagsterCloudCodeLocationUpdateResult,
    DagsterCloudUploadApiResponse,
    DagsterCloudUploadWorkspaceEntry,
    DagsterCloudUploadWorkspaceResponse,
    FileFormat,
    SnapshotUploadData,
    StoreEventBatchRequest,
)
from dagster_shared.serdes import pack_value, serialize_value
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from hpc_agent.control_plane.compute_logs import LogUpload
from hpc_agent.control_plane.http.limits import MAX_LOG_BYTES
from hpc_agent.control_plane.received import received, received_packed
from hpc_agent.control_plane.services import Services
from hpc_agent.control_plane.snapshots import MAX_SNAPSHOT_BYTES, stored_snapshot
from hpc_agent.control_plane.store.locations import DEFAULT_DEPLOYMENT
from hpc_agent.errors import ControlPlaneRefusedError
from hpc_agent.inbound.errors import InputTooLargeError
from hpc_agent.inbound.inflate import inflate
from hpc_agent.inbound.json_text import loads_object
from hpc_agent.inbound.log_key import LogKey
from hpc_agent.journal.about import about

MAX_UPLOAD_BYTES = 256 << 20
"""Unpacked."""

MAX_JSON_BYTES = 64 << 20
READ_AT_A_TIME = 2
_SIZE = re.compile(r"[0-9]{1,12}")


class Uploads:
    """Endpoints; each name is that of the path it serves."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # Each may take some hundred megabytes of memory while it is read.
        self._reading = asyncio.Semaphore(READ_AT_A_TIME)

    async def upload_api_response(self, request: Request) -> Response:
        """Take one answer to a request, or a batch of them."""
        answer: DagsterCloudUploadApiResponse | BatchDagsterCloudUploadApiResponse
        answer = await self._read(
            request, DagsterCloudUploadApiResponse, BatchDagsterCloudUploadApiResponse
        )
        answers = (
            answer.batch if isinstance(answer, BatchDagsterCloudUploadApiResponse) else [answer]
        )
        for each in answers:
            with about({"request_id": each.request_id}):
                settled, is_awaited = await self._services.queue.answer(
                    each.request_id, serialize_value(each.response)
                )
                if settled is not None and not is_awaited:
                    await self._services.runs.settle(settled)
        return JSONResponse({"ok": True})

    async def store_events(self, request: Request) -> Response:
        batch: StoreEventBatchRequest = await self._read(request, StoreEventBatchRequest)
        key = request.headers.get("Idempotency-Key")
        await asyncio.to_thread(self._services.events.write, batch.event_log_entries, key)
        return JSONResponse({"ok": True})

    async def upload_workspace_entry(self, request: Request) -> Response:
        entry: DagsterCloudUploadWorkspaceEntry
        entry = await self._read(request, DagsterCloudUploadWorkspaceEntry)
        missing = await asyncio.to_thread(
            self._services.uploads.update_legacy, deployment_of(request), entry
        )
        answer = DagsterCloudUploadWorkspaceResponse(
            updated=not missing, message=_update_message(missing),
            missing_job_snapshots=missing or None,
        )  # fmt: skip
        return PlainTextResponse(serialize_value(answer), media_type="application/json")

    async def upload_job_snapshot(self, request: Request) -> Response:
        job = await self._unpacked(request)
        await asyncio.to_thread(self._services.uploads.add_legacy_job, job)
        return JSONResponse({"ok": True})

    async def check_snapshot(self, request: Request) -> Response:
        """Tell that a snapshot is here already, or where to put it."""
        query = request.query_params
        sha1, size = query["sha1"], _size(query["size"])
        if await asyncio.to_thread(self._services.snapshots.has, sha1):
            result = CheckSnapshotResult(
                stored_snapshot=stored_snapshot(sha1, size), upload_data=None
            )
        else:
            claims = {"kind": "snapshot", "sha1": sha1}
            upload = SnapshotUploadData(
                sha1=sha1, format=FileFormat.GZIPPED_JSON, uri=f"snapshot:{sha1}",
                presigned_put_url=self._upload_url(request, claims), id=f"{sha1}:{size}",
                type=query["type"],
            )  # fmt: skip
            result = CheckSnapshotResult(stored_snapshot=None, upload_data=upload)
        return JSONResponse(pack_value(result))

    async def confirm_upload(self, request: Request) -> Response:
        upload = received_packed(await json_body(request), SnapshotUploadData)
        if not await asyncio.to_thread(self._services.snapshots.has, upload.sha1):
            raise ControlPlaneRefusedError(f"snapshot {upload.sha1} was not uploaded")
        size = _size(upload.id.partition(":")[2])
        result = ConfirmUploadResult(stored_snapshot=stored_snapshot(upload.sha1, size))
        return JSONResponse(pack_value(result))

    async def code_location_update_result(self, request: Request) -> Response:
        content = await json_body(request)
        result = received_packed(content, DagsterCloudCodeLocationUpdateResult)
        missing = await asyncio.to_thread(
            self._services.uploads.update, deployment_of(request), result
        )
        answer = DagsterCloudCodeLocationUpdateResponse(
            updated=not missing, message=_update_message(missing),
            missing_job_snapshots=missing or None,
        )  # fmt: skip
        return JSONResponse(pack_value(answer))

    async def gen_logs_url(self, request: Request) -> Response:
        query = request.query_params
        claims = {
            "kind": "log",
            "key": LogKey.parse(query.getlist("log_key")).parts,
            "io": ComputeIOType(query["io_type"]).value,
            "partial": query.get("partial", "").lower() in ("true", "1"),
        }
        return JSONResponse({"url": self._upload_url(request, claims)})

    async def upload(self, request: Request) -> Response:
        """Take what a signed address announced."""
        claims = self._services.signer.verify(request.path_params["segment"])
        if claims["kind"] == "snapshot":
            body = await bounded_body(request, MAX_SNAPSHOT_BYTES)
            await asyncio.to_thread(self._services.snapshots.add_upload, claims["sha1"], body)
        else:
            await self._take_log(request, claims)
        return JSONResponse({"ok": True})

    async def _read(self, request: Request, *kinds: type) -> Any:
        """Return the object that an upload holds."""
        packed = await packed_part(request)
        async with self._reading:
            return await asyncio.to_thread(lambda: received(_unpacked(packed), *kinds))

    async def _unpacked(self, request: Request) -> str:
        packed = await packed_part(request)
        async with self._reading:
            return await asyncio.to_thread(_unpacked, packed)

    async def _take_log(self, request: Request, claims: dict[str, Any]) -> None:
        logs = self._services.compute_logs
        upload = LogUpload(
            log_key=LogKey.parse(claims["key"]), io_type=ComputeIOType(claims["io"]),
            partial=claims["partial"],
        )  # fmt: skip
        file = await asyncio.to_thread(logs.spool, upload)
        try:
            async for chunk in bounded_stream(request, MAX_LOG_BYTES):
                await asyncio.to_thread(file.write, chunk)
        except BaseException:
            logs.discard(file)
            raise
        await asyncio.to_thread(logs.finish, upload, file)

    def _upload_url(self, request: Request, claims: dict[str, Any]) -> str:
        # The address by which the agent reached us is the one by which it can reach us again.
        return f"{request.base_url}uploads/{self._services.signer.sign(claims)}"


async def healthz(_request: Request) -> Response:
    return JSONResponse({"status": "ok", "time": time.time()})


def deployment_of(request: Request) -> str:
    return request.headers.get("Dagster-Cloud-Deployment", DEFAULT_DEPLOYMENT)


async def packed_part(request: Request) -> bytes:
    """Return the one zlib-compressed file of a multipart body."""
    async with request.form() as form:
        files = [part for part in form.values() if isinstance(part, UploadFile)]
        if len(files) != 1:
            raise ControlPlaneRefusedError(
                f"{request.url.path} takes a multipart body with one file, not {len(files)}"
            )
        return await files[0].read()


async def json_body(request: Request) -> dict[str, Any]:
    """Return a JSON object, read beside the event loop. Raises InputError."""
    body = await bounded_body(request, MAX_JSON_BYTES)
    return await asyncio.to_thread(loads_object, body)


async def bounded_body(request: Request, limit: int) -> bytes:
    return b"".join([chunk async for chunk in bounded_stream(request, limit)])


async def bounded_stream(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yield a body's chunks. Raises ControlPlaneRefusedError when it outgrows its limit."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise ControlPlaneRefusedError(f"body is larger than {limit} bytes")
        yield chunk


def bad_request(_request: Request, error: Exception) -> Response:
    """Answer 400, or 413, to what is the client's fault."""
    reason = str(error).encode("utf-8", "replace").decode()
    if isinstance(error, KeyError):
        reason = f"parameter {error} is missing"
    status = 413 if isinstance(error, InputTooLargeError) else 400
    return JSONResponse({"error": reason}, status_code=status)


def _unpacked(packed: bytes) -> str:
    return inflate(packed, most_bytes=MAX_UPLOAD_BYTES).decode()


def _size(text: str) -> int:
    if not _SIZE.fullmatch(text):
        raise ControlPlaneRefusedError(f"not a number of bytes: {text[:40]!r}")
    return int(text)


def _update_message(missing: Sequence[JobSelector]) -> str:
    return f"needs {len(missing)} job snapshots first" if missing else "is up to date"
