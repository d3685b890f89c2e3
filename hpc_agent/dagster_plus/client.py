"""The agent API over HTTPS: one client for GraphQL, REST and pre-signed uploads alike.

One HTTP stack for all of it, so that CA bundle, proxy and deadlines hold everywhere, and every
status is looked at. httpx errors become errors of ours here and nowhere else.
"""

from __future__ import annotations

import asyncio
import platform
import ssl
import string
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from hpc_agent import __version__
from hpc_agent.config import ControlPlane
from hpc_agent.dagster_plus.serdes import Packed, dumps
from hpc_agent.errors import (
    ConfigError,
    ControlPlaneAuthError,
    ControlPlaneError,
    ControlPlaneRefusedError,
    ControlPlaneUnavailableError,
)
from hpc_agent.inbound.json_text import loads
from hpc_agent.outgoing.graphql_answer import are_of_the_document
from hpc_agent.outgoing.http_client import BYTES_A_SECOND, http_client, whole_answer
from hpc_agent.outgoing.storage_addresses import StorageAddresses
from hpc_agent.outgoing.verdict import maintenance
from hpc_agent.tls import tightened

# What the stock client retries (dagster_cloud_cli/core/graphql_client.py: RETRY_STATUS_CODES).
RETRY_STATUSES = frozenset({409, 429, 500, 502, 503, 504})
_POLL_MARGIN_SECONDS = 15.0
# The release of dagster-cloud whose agent API this is; the control plane goes by it, as it does
# with the stock agent's ``Dagster-Cloud-Version``.
PROTOCOL_VERSION = "1.13.27"
# The Date header counts whole seconds: a smaller difference says nothing.
_CLOCKS_AGREE_SECONDS = 3.0
_WORDS = 2000
_TOKEN_HEADER = "Dagster-Cloud-Api-Token"  # noqa: S105 - the header's name


class ControlPlaneStatusError(ControlPlaneRefusedError):
    """The control plane refused a call with an HTTP status; some of them have a meaning."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AgentApi:
    """Calls of the agent API.

    ``token`` is asked at every call, so that a rotated token is picked up. ``renew`` is told which
    one was refused (HTTP 401); if there is another one after it, the call is made once more. Every
    method raises ControlPlaneUnavailableError, ControlPlaneAuthError or ControlPlaneRefusedError.
    """

    def __init__(
        self,
        settings: ControlPlane,
        *,
        token: Callable[[], str],
        renew: Callable[[str], Awaitable[None]] | None = None,
        agent_id: str,
    ) -> None:
        self._settings = settings
        self._token = token
        self._renew = renew
        self._agent_id = agent_id
        self.trust = _trust(settings)
        self._clock_offset = 0.0
        self.addresses = StorageAddresses(settings.url, settings.storage_hosts)
        self.http = http_client(
            base_url=settings.url,
            trust=self.trust,
            proxy=settings.proxy,
            timeout_seconds=settings.timeout_seconds,
            headers={"User-Agent": f"hpc-agent/{__version__}"},
            connections=64,
            kept=16,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()

    def server_time(self, now: float) -> float:
        """Return what time it is for the control plane: its deadlines are by its own clock."""
        return now + self._clock_offset

    def headers(self, deployment: str | None) -> dict[str, str]:
        """Return what authenticates a call; without a deployment it concerns the organization."""
        headers = {
            _TOKEN_HEADER: self._token(),
            "Dagster-Cloud-Version": PROTOCOL_VERSION,
            "Dagster-Cloud-Scope": "deployment" if deployment else "organization",
            "Python-Version": platform.python_version(),
            "X-Hpc-Agent-Id": self._agent_id,
        }
        if deployment:
            headers["Dagster-Cloud-Deployment"] = deployment
        return headers

    async def graphql(
        self,
        document: str,
        variables: Mapping[str, Any],
        *,
        deployment: str | None = None,
        idempotency_key: str | None = None,
        wait_seconds: float = 0,
    ) -> dict[str, Any]:
        """Execute a document and return its ``data``.

        ``wait_seconds`` asks for a long poll (RFC 7240 ``Prefer: wait``); whoever does not know it
        answers at once.
        """
        response = await self.send_graphql(
            document,
            variables,
            deployment=deployment,
            idempotency_key=idempotency_key,
            wait_seconds=wait_seconds,
        )
        return data_of(response)

    async def graphql_answer(
        self, document: str, variables: Mapping[str, Any], **more: Any
    ) -> dict[str, Any]:
        """Execute a document and return the answer: it may hold both ``data`` and ``errors``."""
        response = await self.send_graphql(document, variables, **more)
        _check(response)
        return _json_object(response)

    async def send_graphql(
        self,
        document: str,
        variables: Mapping[str, Any],
        *,
        deployment: str | None = None,
        idempotency_key: str | None = None,
        wait_seconds: float = 0,
        more_headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a document and return the answer, whatever it says.

        Raises ControlPlaneUnavailableError when none came.
        """
        headers = {
            **self.headers(deployment),
            **(more_headers or {}),
            "Content-Type": "application/json",
        }
        if idempotency_key:
            # Headers are ASCII; the key stays the same at each attempt.
            key = quote(idempotency_key, safe=string.printable)
            headers |= {"Idempotency-Key": key, "X-Event-Write": "true"}
        if wait_seconds:
            headers["Prefer"] = f"wait={wait_seconds:.0f}"
        return await self._send(
            "POST",
            "/graphql",
            headers=headers,
            # Not httpx's own JSON, which stops at half of a surrogate pair.
            content=dumps({"query": document, "variables": variables}).encode(),
            more_seconds=wait_seconds + _POLL_MARGIN_SECONDS,
        )

    async def get(self, path: str, *, deployment: str, parameters: Mapping[str, Any]) -> Packed:
        """GET a REST endpoint and return its JSON object."""
        response = await self._send(
            "GET", path, headers=self.headers(deployment), params=dict(parameters)
        )
        _check(response)
        return _json_object(response)

    async def put_json(self, path: str, content: Packed, *, deployment: str) -> Packed:
        """PUT a JSON object and return the JSON object that is answered."""
        headers = self.headers(deployment) | {"Content-Type": "application/json"}
        response = await self._send("PUT", path, headers=headers, content=dumps(content).encode())
        _check(response)
        return _json_object(response)

    async def put_compressed(
        self, path: str, file_name: str, content: str, *, deployment: str
    ) -> str:
        """PUT serdes JSON the way the stock agent does, zlib in a multipart file.

        Returns the answer as it came: that to an answer of ours is not promised to be JSON.
        """
        response = await self.send_compressed(path, file_name, content, deployment=deployment)
        _check(response)
        return response.text

    async def send_compressed(
        self, path: str, file_name: str, content: str, *, deployment: str
    ) -> httpx.Response:
        """Do as ``put_compressed`` does, and return the answer, whatever it says."""
        body = await asyncio.to_thread(zlib.compress, content.encode())
        # With its type said, since httpx reads /etc/mime.types to guess one.
        file = ("upload", body, "application/octet-stream")
        return await self._send(
            "PUT", path, headers=self.headers(deployment), files={file_name: file}
        )

    async def put_presigned(self, url: str, body: bytes) -> None:
        """PUT to a pre-signed address, which takes no token of ours.

        Raises ControlPlaneRefusedError as well for an address that is no storage we know.
        """
        _check(await self._send("PUT", self.addresses.checked(url), content=body))

    async def _send(
        self,
        method: str,
        url: str | httpx.URL,
        *,
        headers: Mapping[str, str] | None = None,
        **arguments: Any,
    ) -> httpx.Response:
        response = await self._request(method, url, headers=headers, **arguments)
        if response.status_code == 401 and self._renew and headers and _TOKEN_HEADER in headers:
            await self._renew(headers[_TOKEN_HEADER])
            renewed = {**headers, _TOKEN_HEADER: self._token()}
            if renewed != headers:
                return await self._request(method, url, headers=renewed, **arguments)
        return response

    async def _request(
        self, method: str, url: str | httpx.URL, *, more_seconds: float = 0, **arguments: Any
    ) -> httpx.Response:
        """Send a request and return the whole answer; ``more_seconds`` beside those of one call."""
        seconds = self._settings.timeout_seconds + more_seconds
        sent_at = time.time()
        try:
            request = self.http.build_request(method, url, timeout=seconds, **arguments)
            length = int(request.headers.get("Content-Length", 0))
            response = await whole_answer(
                self.http, request, seconds=seconds + length / BYTES_A_SECOND
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            where = self._settings.url
            reason = str(error) or type(error).__name__
            raise ControlPlaneUnavailableError(f"{where}: {reason}") from error
        self._note_time(response, sent_at)
        return response

    def _note_time(self, response: httpx.Response, sent_at: float) -> None:
        """Compare clocks by an answer, which was made at some moment since it was asked for."""
        try:
            there = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
        except (ValueError, OverflowError):  # a year or an offset that no clock has
            return
        offset = min(there - sent_at, 0.0) or max(there - time.time(), 0.0)
        self._clock_offset = offset if abs(offset) > _CLOCKS_AGREE_SECONDS else 0.0


def data_of(response: httpx.Response) -> dict[str, Any]:
    """Return the ``data`` of the answer to a document."""
    _check(response)
    content = _json_object(response)
    if content.get("errors"):
        raise graphql_error(content["errors"])
    data = content.get("data")
    return data if isinstance(data, dict) else {}


def graphql_error(errors: object) -> ControlPlaneError:
    """Return the error that GraphQL errors are: they may pass, as HTTP 500 may."""
    kind = ControlPlaneRefusedError if are_of_the_document(errors) else ControlPlaneUnavailableError
    return kind(f"GraphQL: {errors}"[:_WORDS])


def _trust(settings: ControlPlane) -> ssl.SSLContext:
    context = tightened(ssl.create_default_context())
    if settings.ca_bundle:
        try:
            context.load_verify_locations(cafile=str(settings.ca_bundle))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"control_plane.ca_bundle: {settings.ca_bundle}: {error}") from None
    return context


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status < 300:
        return
    where = f"{response.request.method} {response.request.url.path}: HTTP {status}"
    words = f"{where}: {response.text[:500]}" if response.text else where
    if status in {401, 403}:
        raise ControlPlaneAuthError(f"the control plane refuses the agent token ({words})")
    if status in RETRY_STATUSES:
        raise ControlPlaneUnavailableError(maintenance(response.text) or words)
    raise ControlPlaneStatusError(words, status)


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        content = loads(response.content)
    except ValueError:
        raise ControlPlaneError(
            f"{response.request.url.path}: the answer is not JSON; is this the agent API's address?"
        ) from None
    if not isinstance(content, dict):
        raise ControlPlaneError(f"{response.request.url.path}: the answer is not a JSON object")
    if notice := maintenance(response.text):
        raise ControlPlaneUnavailableError(notice)
    return content
