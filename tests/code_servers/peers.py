"""Whom the agent talks to about definitions: a code server and a control plane, on real sockets."""
# ruff: noqa: N802 - the method names are those of the gRPC service

from __future__ import annotations

import hashlib
import json
import warnings
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from contextlib import asynccontextmanager
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any

import grpc

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dagster._grpc.__generated__ import dagster_api_pb2 as pb
    from dagster._grpc.__generated__.dagster_api_pb2_grpc import (
        DagsterApiServicer,
        add_DagsterApiServicer_to_server,
    )

from hpc_agent.code_servers.uploads import Uploads
from hpc_agent.config import CodeServers, ControlPlane
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.grpc.client import CodeServerClient
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from tests.agent.gateway import ScriptedGateway, scripted_gateway
from tests.relay.fake_control_plane import Received

POINTER = {
    "__class__": "ModuleCodePointer", "module": "m", "fn_name": "defs", "working_directory": None,
}  # fmt: skip
REPOSITORY = '{"__class__": "ExternalRepositoryData", "name": "__repository__"}'
JOB = json.dumps({"__class__": "ExternalPipelineData", "pipeline_snapshot": {"name": "j"}})
LISTING = json.dumps(
    {
        "__class__": "ListRepositoriesResponse",
        "repository_code_pointer_dict": {"__repository__": POINTER},
        "container_image": None,
        "executable_path": "/py",
        "dagster_library_versions": {"dagster": "1.13.27"},
    }
)
METADATA = '{"__class__": "CodeDeploymentMetadata", "module_name": "m", "image": null}'
SERVER = CodeServer(
    key="srv-1",
    deployment="prod",
    location="here",
    version="1.0",
    deploy_data=METADATA,
    status=ServerStatus.STARTING,
    error=None,
    created_at=1.0,
)
MISSING = {
    "__class__": "JobSelector", "location_name": "here", "repository_name": "__repository__",
    "job_name": "j",
}  # fmt: skip


class UserCode(DagsterApiServicer):
    """A code server on a real socket; ``listing`` may be the error of loading the code."""

    def __init__(self, listing: str = LISTING, job: str = JOB) -> None:
        self.listing = listing
        self.job = job
        self.failures = 0

    def ListRepositories(self, request: Any, context: Any) -> Any:
        if self.failures:
            self.failures -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "a moment, please")
        return pb.ListRepositoriesReply(serialized_list_repositories_response_or_error=self.listing)

    def StreamingExternalRepository(self, request: Any, context: Any) -> Any:
        assert request.defer_snapshots
        for number, part in enumerate((REPOSITORY[:20], REPOSITORY[20:])):
            yield pb.StreamingExternalRepositoryEvent(
                sequence_number=number, serialized_external_repository_chunk=part
            )

    def ExternalJob(self, request: Any, context: Any) -> Any:
        return pb.ExternalJobReply(serialized_job_data=self.job, serialized_error="no such job")


@asynccontextmanager
async def code_server(directory: Path, servicer: UserCode) -> AsyncIterator[CodeServerClient]:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    add_DagsterApiServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    socket = directory / "server.sock"
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    client = CodeServerClient(socket)
    try:
        yield client
    finally:
        await client.close()
        server.stop(None).wait()


class Plane:
    """A control plane that stores snapshots, and asks for one job's before it is content."""

    def __init__(self, *, knows_direct: bool = True) -> None:
        self.knows_direct = knows_direct
        self.stored: dict[str, str] = {}
        self.results: list[Any] = []
        self.entries: list[Any] = []
        self.jobs: list[str] = []
        self.broken = 200
        self.is_never_content = False
        self.failures = 0
        # What happens elsewhere while it takes the so-many-th result; it may block.
        self.meanwhile: dict[int, Callable[[], object]] = {}

    def __call__(self, call: Received) -> tuple[int, Any]:
        path = call.path.partition("?")[0]
        if self.failures:
            self.failures -= 1
            return 503, {"error": "a moment, please"}
        if self.broken != 200:
            return self.broken, {"error": "away"}
        if path == "/check_snapshot":
            return self._check(call) if self.knows_direct else (404, {"detail": "Not Found"})
        if path.startswith("/bucket/") or path == "/confirm_upload":
            return 200, self._store(path, call)
        if path == "/code_location_update_result":
            self.results.append(call.body.decode())
            self.meanwhile.get(len(self.results), bool)()
            return 200, self._update(bool(self.results[:-1]))
        return self._legacy(path, call)

    def _store(self, path: str, call: Received) -> dict[str, Any]:
        if path == "/confirm_upload":
            return {"stored_snapshot": stored(json.loads(call.body)["sha1"])}
        self.stored[path.removeprefix("/bucket/")] = zlib.decompress(call.body).decode()
        return {}

    def _legacy(self, path: str, call: Received) -> tuple[int, Any]:
        if path == "/upload_job_snapshot":
            self.jobs.append(inflated(call))
            return 200, {"ok": True}
        assert path == "/upload_workspace_entry"
        self.entries.append(inflated(call))
        return 200, self._update(bool(self.jobs))

    def _check(self, call: Received) -> tuple[int, Any]:
        query = dict(part.split("=") for part in call.path.partition("?")[2].split("&"))
        if query["sha1"] in self.stored:
            return 200, {"stored_snapshot": stored(query["sha1"]), "upload_data": None}
        host = call.headers["host"]
        upload = {
            "__class__": "SnapshotUploadData", "sha1": query["sha1"], "format": "json.gz",
            "uri": "u", "presigned_put_url": f"http://{host}/bucket/{query['sha1']}", "id": "1",
            "type": query["type"],
        }  # fmt: skip
        return 200, {"stored_snapshot": None, "upload_data": upload}

    def _update(self, content: bool) -> dict[str, Any]:
        if self.is_never_content:
            return {"updated": False, "message": "never", "missing_job_snapshots": []}
        missing = None if content else [MISSING]
        return {"updated": content, "message": "is up to date", "missing_job_snapshots": missing}


def stored(sha1: str) -> dict[str, Any]:
    return {
        "__class__": "StoredSnapshot", "sha1": sha1, "format": "json.gz", "uri": "u",
        "decompressed_size": 1,
    }  # fmt: skip


def inflated(call: Received) -> str:
    head = f"Content-Type: {call.headers['content-type']}\r\n\r\n".encode()
    (part,) = BytesParser(policy=HTTP).parsebytes(head + call.body).iter_parts()
    content: Any = part.get_payload(decode=True)
    return zlib.decompress(content).decode()


@asynccontextmanager
async def uploads_to(
    plane: Plane, scheme: str = "direct"
) -> AsyncIterator[tuple[Uploads, ScriptedGateway]]:
    with scripted_gateway(plane) as gateway:
        settings = ControlPlane(url=gateway.url)
        async with AgentApi(settings, token=lambda: "token", agent_id="agent") as api:
            config = CodeServers.model_validate({"snapshot_uploads": scheme})
            yield Uploads(api, config), gateway


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
