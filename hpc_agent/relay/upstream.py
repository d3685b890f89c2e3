"""The control plane as the relay sees it: requests in a job's name, with the agent's token."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from hpc_agent.errors import ControlPlaneUnavailableError, HpcAgentError
from hpc_agent.outgoing.graphql_answer import are_of_the_document
from hpc_agent.outgoing.http_client import BYTES_A_SECOND, read_whole
from hpc_agent.outgoing.storage_addresses import StorageAddresses
from hpc_agent.outgoing.verdict import json_object, maintenance
from hpc_agent.relay.event_writes import EventWrite
from hpc_agent.relay.identity import DEPLOYMENT_HEADER, IDEMPOTENCY_HEADER, SCOPE_HEADER

# The stock dagster-cloud client waits 60 s for an answer: that is the time of all attempts.
_ALL_SECONDS = 58.0
_API_SECONDS = 40.0
_CONNECT_SECONDS = 10.0
_TRANSFER_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
# The agent's token is refused (for now), or the control plane asks to come back: nothing that a job
# could do anything about.
_COME_BACK = frozenset({401, 403, 408, 425, 429})
# Larger answers are passed on as they come, without a look at them; also those that are larger when
# they are unpacked.
_LOOKED_AT_BYTES = 1 << 20
# Unpacked. What is asked for by a job is small, or goes on unread.
_READ_BYTES = 16 << 20
_FIRST_PAUSE = 0.2
_MAX_PAUSE = 5.0

# Says what an answer's JSON object lacks of what was asked for, "" for nothing.
Lacks = Callable[[dict[str, Any]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Clients and credentials.

    ``api`` has the control plane's base URL and must carry no token of its own; ``storage`` is for
    pre-signed addresses and must send no credentials at all, to ``addresses`` alone.
    ``credentials`` returns the headers of a deployment, the agent's token among them; it is asked
    anew for every request.
    """

    api: httpx.AsyncClient
    storage: httpx.AsyncClient
    addresses: StorageAddresses
    credentials: Callable[[str], Mapping[str, str]]

    async def open(
        self,
        method: str,
        path: str,
        *,
        deployment: str,
        headers: Mapping[str, str],
        content: bytes,
        seconds: float = _API_SECONDS,
    ) -> httpx.Response:
        """Send a request and return its answer unread. Raises ControlPlaneUnavailableError."""
        # As bytes, which is what they were: httpx takes text for ASCII.
        merged = httpx.Headers(
            {name.encode("latin-1"): each.encode("latin-1") for name, each in headers.items()}
        )
        try:
            merged.update(dict(self.credentials(deployment)))
        except HpcAgentError as error:
            raise ControlPlaneUnavailableError(f"no credentials: {error}") from error
        merged[DEPLOYMENT_HEADER] = deployment
        merged[SCOPE_HEADER] = "deployment"
        request = self.api.build_request(
            method,
            path,
            headers=merged,
            content=content,
            timeout=httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
        )
        return await _send(self.api, request, seconds=seconds + len(content) / BYTES_A_SECOND)

    async def open_patiently(
        self,
        method: str,
        path: str,
        *,
        deployment: str,
        headers: Mapping[str, str],
        content: bytes,
        patience_seconds: float,
        lacks: Lacks,
    ) -> httpx.Response:
        """Do as ``open`` does, trying anew for so long while nobody answers.

        What is no answer of the agent API (HTTP 5xx, a refused token, a web page, half of a JSON
        document, JSON that lacks what was asked for) is taken for none, and raises
        ControlPlaneUnavailableError in the end. GraphQL errors may pass as well; those that do not
        are the answer.
        """
        pause, started = _FIRST_PAUSE, time.monotonic()
        while True:
            seconds = min(_API_SECONDS, started + _ALL_SECONDS - time.monotonic())
            try:
                answer = await self.open(
                    method,
                    path,
                    deployment=deployment,
                    headers=headers,
                    content=content,
                    seconds=seconds,
                )
            except ControlPlaneUnavailableError:
                if time.monotonic() >= started + patience_seconds:
                    raise
            else:
                answer, trouble = await _looked_at(answer, lacks)
                is_over = time.monotonic() >= started + patience_seconds
                if trouble is None or (is_over and trouble.is_said_by_it):
                    return answer
                await answer.aclose()
                if is_over:
                    raise ControlPlaneUnavailableError(trouble.words)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)
            pause = min(pause * 2, _MAX_PAUSE)

    async def store(self, write: EventWrite) -> httpx.Response:
        """Deliver an event write and return the whole answer, whatever it says.

        Raises ControlPlaneUnavailableError when none came.
        """
        headers = dict(write.headers) | {IDEMPOTENCY_HEADER: write.idempotency_key}
        answer = await self.open(
            write.method,
            write.path,
            deployment=write.deployment,
            headers=headers,
            content=write.body,
        )
        try:
            return await _whole(answer)
        except httpx.HTTPError as error:
            raise ControlPlaneUnavailableError(f"its answer broke off: {error!r}") from error

    async def transfer(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: AsyncIterator[bytes] | None,
    ) -> httpx.Response:
        """Stream to or from a pre-signed address.

        Raises ControlPlaneUnavailableError, and ControlPlaneRefusedError for an address that is no
        storage we know.
        """
        address = self.addresses.checked(url)
        request = self.storage.build_request(
            method, address, headers=dict(headers), content=content, timeout=_TRANSFER_TIMEOUT
        )
        return await _send(self.storage, request)


def is_no_answer(status: int) -> bool:
    """Whether a status says that the control plane, or who stands before it, cannot answer now."""
    return status >= 500 or status in _COME_BACK


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why an answer is not believed; ``is_said_by_it``: it is the agent API's all the same."""

    words: str
    is_said_by_it: bool = False


async def _looked_at(
    answer: httpx.Response, lacks: Lacks
) -> tuple[httpx.Response, _Trouble | None]:
    """Read an answer if it is small; say why it is no answer of the agent API, None for one."""
    size = answer.headers.get("content-length", "")
    if size.isdecimal() and len(size) < 10 and int(size) <= _LOOKED_AT_BYTES:
        try:
            answer = await _whole(answer)
        except httpx.HTTPError as error:
            return answer, _Trouble(f"the control plane's answer broke off: {error!r}")
    return answer, _trouble(answer, lacks)


def _trouble(answer: httpx.Response, lacks: Lacks) -> _Trouble | None:
    # The stock client waits for its end by itself, for as long as it says.
    if answer.is_stream_consumed and maintenance(answer.text):
        return None
    if is_no_answer(answer.status_code):
        return _Trouble(f"the control plane answered HTTP {answer.status_code}")
    kind = answer.headers.get("content-type", "")
    if answer.status_code == 200 and "json" not in kind:
        return _Trouble(f"the control plane answered with {kind or 'something'} in place of JSON")
    if answer.status_code != 200 or not answer.is_stream_consumed:
        return None
    return _trouble_in(json_object(answer), lacks)


def _trouble_in(content: dict[str, Any] | None, lacks: Lacks) -> _Trouble | None:
    if content is None:
        return _Trouble("the control plane's answer is no JSON object")
    if errors := content.get("errors"):
        if are_of_the_document(errors):
            return None
        return _Trouble(f"the control plane answered with errors: {errors}", is_said_by_it=True)
    if lack := lacks(content):
        return _Trouble(f"the control plane's answer is to something else: {lack}")
    return None


async def _whole(answer: httpx.Response) -> httpx.Response:
    """Read an answer and close it. Raises httpx.HTTPError."""
    try:
        async with asyncio.timeout(_API_SECONDS):
            return await read_whole(answer, most_bytes=_READ_BYTES)
    except TimeoutError:
        raise httpx.ReadTimeout("it comes too slowly", request=answer.request) from None
    finally:
        await answer.aclose()


async def _send(
    client: httpx.AsyncClient, request: httpx.Request, *, seconds: float | None = None
) -> httpx.Response:
    """Send a request; its answer must begin within ``seconds`` however slowly it drips."""
    try:
        async with asyncio.timeout(seconds):
            return await client.send(request, stream=True)
    except TimeoutError:
        words = f"{request.url.host} does not answer within {seconds:.0f} s"
        raise ControlPlaneUnavailableError(words) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ControlPlaneUnavailableError(
            f"cannot reach {request.url.host}: {error or repr(error)}"
        ) from error
