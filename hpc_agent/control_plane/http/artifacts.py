"""Artifacts: addresses to put and to fetch them (dagster_cloud_cli/core/artifacts.py)."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hpc_agent.control_plane.http.limits import MAX_BODY_BYTES
from hpc_agent.control_plane.http.uploads import deployment_of, json_body
from hpc_agent.control_plane.signed_urls import UrlSigner
from hpc_agent.control_plane.store.artifacts import Artifacts
from hpc_agent.errors import ControlPlaneRefusedError
from hpc_agent.inbound.names import is_file_name

LONGEST_NAME = 400
"""Bytes; object stores take 1,024 for a whole key."""


class ArtifactEndpoints:
    """Endpoints; an address is signed, good for a while, and needs no token."""

    def __init__(self, artifacts: Artifacts, signer: UrlSigner) -> None:
        self._artifacts = artifacts
        self._signer = signer

    async def gen_artifact_get(self, request: Request) -> Response:
        return JSONResponse({"url": await self._url(request, "get")})

    async def gen_artifact_post(self, request: Request) -> Response:
        # The client posts these fields along with the file; S3 would want its policy there.
        return JSONResponse({"url": await self._url(request, "post"), "fields": {}})

    async def fetch(self, request: Request) -> Response:
        claims = self._claims(request, "get")
        content = await asyncio.to_thread(self._artifacts.get, claims["deployment"], claims["key"])
        if content is None:
            message = f"deployment {claims['deployment']!r} has no artifact {claims['key']!r}"
            return JSONResponse({"error": message}, status_code=404)
        return Response(content, media_type="application/octet-stream")

    async def put(self, request: Request) -> Response:
        claims = self._claims(request, "post")
        async with request.form(max_part_size=MAX_BODY_BYTES) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise ControlPlaneRefusedError("an artifact is posted as the form's field `file`")
            content = await file.read()
        await asyncio.to_thread(self._artifacts.put, claims["deployment"], claims["key"], content)
        return Response(status_code=204)

    async def _url(self, request: Request, action: str) -> str:
        key = (await json_body(request)).get("key")
        if not isinstance(key, str) or not _is_key(key):
            raise ControlPlaneRefusedError("`key` must be names with slashes between them")
        claims = {
            "kind": "artifact", "action": action, "key": key, "deployment": deployment_of(request),
        }  # fmt: skip
        return f"{request.base_url}artifacts/{self._signer.sign(claims)}"

    def _claims(self, request: Request, action: str) -> dict[str, Any]:
        claims = self._signer.verify(request.path_params["segment"])
        if claims["kind"] != "artifact" or claims["action"] != action:
            raise ControlPlaneRefusedError(f"this address is not one to {action} an artifact")
        return claims


def _is_key(text: str) -> bool:
    return all(is_file_name(name, longest=LONGEST_NAME) for name in text.split("/"))
