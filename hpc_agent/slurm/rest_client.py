"""Calls of slurmrestd: the version of its API, tokens, and what an answer or its absence means.

httpx errors become errors of ours here and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from hpc_agent.errors import ConfigError, SchedulerUnavailableError
from hpc_agent.slurm.observation import OnCall, nobody, observed
from hpc_agent.slurm.rate import TokenBucket
from hpc_agent.slurm.rest_token import Token, named_in
from hpc_agent.tls import tightened

logger = logging.getLogger(__name__)

_SOCKET = "unix://"
_OPENAPI = "/openapi/v3"
_PATH = re.compile(r"/(slurm|slurmdb)/(v\d+\.\d+\.\d+)/")
# Larger documents are parsed in a thread: those of 10,000 jobs have tens of megabytes.
_LARGE_BYTES = 256 * 1024
# The connection ended instead of an answer.
_CUT = (httpx.ReadError, httpx.RemoteProtocolError)
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
# slurmrestd hands a token on, and slurmctld refuses it: SLURM_PROTOCOL_AUTHENTICATION_ERROR.
_AUTHENTICATION_ERROR = 1007
UNSPECIFIED = -1
# What 22.05 says when slurmctld has ended the connection because of the token.
_MAYBE_THE_TOKEN = frozenset({UNSPECIFIED, 5005})


class AnswerLostError(Exception):
    """The request was sent, at least in part, and its answer did not arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where slurmrestd is: ``http://``, ``https://`` or ``unix:///path``; ``user`` as it knows him.

    Without ``user``, the one whom the token names (``sun``).
    """

    url: str
    user: str | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Api:
    """The chosen version of the API, and whether it has calls for accounting."""

    version: str
    has_accounting: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of slurmrestd: HTTP status, content, and the errors in it, in Slurm's words."""

    status: int
    content: Mapping[str, Any]
    error: str = ""
    is_from_slurm: bool = True
    error_numbers: frozenset[int] = field(default_factory=frozenset)

    @property
    def succeeded(self) -> bool:
        """Whether the call was carried out."""
        return self.status < HTTPStatus.BAD_REQUEST and not self.error

    @property
    def is_unauthorized(self) -> bool:
        """Whether the token was refused, by slurmrestd or by slurmctld."""
        return self.status in _REFUSED or _AUTHENTICATION_ERROR in self.error_numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    method: str
    path: str
    query: Mapping[str, str] | None = None
    content: Mapping[str, Any] | None = None
    timeout_seconds: float | None = None


class RestClient:
    """Sends requests, each on a connection of its own, all within one rate limit."""

    def __init__(
        self,
        target: Target,
        token: Token | None,
        *,
        versions: tuple[str, ...],
        bucket: TokenBucket,
        timeout_seconds: float,
        on_call: OnCall = nobody,
    ) -> None:
        """Prepare; nothing is sent. ``versions`` are those that are supported, newest first."""
        socket = target.url.removeprefix(_SOCKET) if target.url.startswith(_SOCKET) else None
        verify = _trust(target)
        self._target = target
        self._token = token
        self._versions = versions
        self._bucket = bucket
        self._on_call = on_call
        self._api: Api | None = None
        self._http = httpx.AsyncClient(
            base_url="http://slurmrestd" if socket else target.url,
            transport=httpx.AsyncHTTPTransport(
                uds=socket,
                verify=verify,
                # slurmrestd closes idle connections: on one that is kept, a request may be lost.
                limits=httpx.Limits(max_keepalive_connections=0),
            ),
            timeout=timeout_seconds,
            headers={"Accept": "application/json"},
        )

    async def close(self) -> None:
        """Give back what is open."""
        await self._http.aclose()

    async def user(self) -> str:
        """Return whose jobs these are."""
        if self._target.user:
            return self._target.user
        name = named_in(await self._token.get()) if self._token else ""
        if not name:
            raise SchedulerUnavailableError(
                "the token for slurmrestd does not name its user: set scheduler.rest.user"
            )
        return name

    async def api(self) -> Api:
        """Return the version to use: the newest one that both sides know. Asked once.

        Raises SchedulerUnavailableError when there is none.
        """
        if self._api is None:
            try:
                answer = await self._send(_Request(method="GET", path=_OPENAPI))
            except AnswerLostError as error:
                raise SchedulerUnavailableError(str(error)) from error
            if not answer.succeeded:
                raise unavailable(answer)
            self._api = choose(answer.content.get("paths") or {}, self._versions)
            logger.info("slurmrestd at %s: %s", self._target.url, self._api)
        return self._api

    async def call(
        self,
        method: str,
        path: str,
        *,
        service: str = "slurm",
        query: Mapping[str, str] | None = None,
        content: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Make one call below ``/SERVICE/VERSION``.

        Raises SchedulerUnavailableError when nothing was sent, AnswerLostError when the request
        was. A token that is refused is renewed, and the call made again with the new one.
        """
        api = await self.api()
        answer = await self._send(
            _Request(
                method=method,
                path=f"/{service}/{api.version}{path}",
                query=query,
                content=content,
                timeout_seconds=timeout_seconds,
            )
        )
        if answer.status == HTTPStatus.NOT_FOUND and not answer.is_from_slurm:
            self._api = None  # slurmrestd was replaced by one with other versions
        return answer

    async def _send(self, request: _Request) -> Answer:
        if self._token is None:
            return await self._send_once(request, "")
        token = await self._token.get()
        answer = await self._send_once(request, token)
        if not answer.is_unauthorized:
            return answer
        renewed = await self._token.renew(token)
        # slurmctld's own refusal is no proof that it did nothing: then only the next call has it.
        if renewed == token or answer.status not in _REFUSED:
            return answer
        return await self._send_once(request, renewed)

    async def _send_once(self, request: _Request, token: str) -> Answer:
        try:
            return await self._exchange(request, token)
        except AnswerLostError as error:
            # A question may be asked twice: slurmrestd that is busy ends a connection at times.
            if request.method != "GET" or not isinstance(error.__cause__, _CUT):
                raise
            return await self._exchange(request, token)

    async def _exchange(self, request: _Request, token: str) -> Answer:
        await self._bucket.take()
        with observed(_name_of(request), self._on_call) as call:
            answer = await self._exchange_now(request, token)
            call.ended(well=answer.succeeded)
            return answer

    async def _exchange_now(self, request: _Request, token: str) -> Answer:
        seconds = request.timeout_seconds
        headers = {"X-SLURM-USER-TOKEN": token} if token else {}
        # 22.05 refuses a token without a name beside it.
        if name := self._target.user or named_in(token):
            headers["X-SLURM-USER-NAME"] = name
        try:
            response = await self._http.request(
                request.method,
                request.path,
                params=request.query,
                json=request.content,
                headers=headers,
                timeout=httpx.USE_CLIENT_DEFAULT if seconds is None else seconds,
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise SchedulerUnavailableError(
                f"Unable to connect to slurmrestd at {self._target.url}: {_words(error)}"
            ) from error
        except httpx.HTTPError as error:
            raise AnswerLostError(
                f"slurmrestd at {self._target.url} was asked, but its answer is lost: "
                f"{_words(error)}"
            ) from error
        return await _answer(response)


def _name_of(request: _Request) -> str:
    """Return which call it is, without its version and the job that it is about."""
    _, service, *rest = request.path.split("/")
    return f"{request.method} {service}/{rest[1]}" if len(rest) > 1 else service


def choose(paths: Mapping[str, Any], supported: tuple[str, ...]) -> Api:
    """Choose among the versions in an OpenAPI document. Raises SchedulerUnavailableError."""
    offered = {match.groups() for match in map(_PATH.match, paths) if match}
    for version in supported:
        if ("slurm", version) in offered:
            return Api(version, ("slurmdb", version) in offered)
    found = ", ".join(sorted({version for _, version in offered})) or "none"
    raise SchedulerUnavailableError(
        f"slurmrestd offers no version of its API that is supported: it has {found}, "
        f"hpc-agent speaks {', '.join(supported)}"
    )


def unavailable(answer: Answer) -> SchedulerUnavailableError:
    """Return the error of a call that has taught us nothing."""
    if answer.is_unauthorized:
        return SchedulerUnavailableError(
            f"slurmrestd refuses the token (HTTP status {answer.status}: {answer.error}). It may "
            "have expired, or be another user's: see scheduler.rest in agent.yaml"
        )
    hint = "; 22.05 says so of a token that has expired, too"
    more = hint if answer.error_numbers & _MAYBE_THE_TOKEN else ""
    return SchedulerUnavailableError(
        f"slurmrestd: {answer.error} (HTTP status {answer.status}){more}"
    )


async def _answer(response: httpx.Response) -> Answer:
    content = await _json(response)
    if content is None:
        words = " ".join(response.text.split())[:300] or response.reason_phrase
        return Answer(response.status_code, {}, words or "no JSON", is_from_slurm=False)
    entries = [*_mappings(content.get("errors")), *_refused_orders(content)]
    entries = [entry for entry in entries if _number(entry) != 0 or _text(entry)]
    error = "; ".join(dict.fromkeys(_text(entry) or str(_number(entry)) for entry in entries))
    if not error and response.status_code >= HTTPStatus.BAD_REQUEST:
        error = response.reason_phrase or "no reason given"
    numbers = frozenset(_number(entry) for entry in entries)
    return Answer(response.status_code, content, error, error_numbers=numbers)


def _refused_orders(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what went wrong with an order about jobs, which succeeds as a call (24.11)."""
    errors = _mappings([each.get("error") for each in _mappings(content.get("status"))])
    return [
        {"error_number": error["code"], "error": error.get("string")}
        for error in errors
        if error.get("code")
    ]


def _mappings(entries: Any) -> list[Mapping[str, Any]]:
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, Mapping)]


async def _json(response: httpx.Response) -> Mapping[str, Any] | None:
    data = response.content
    try:
        large = len(data) > _LARGE_BYTES
        content = await asyncio.to_thread(json.loads, data) if large else json.loads(data)
    except ValueError:
        return None
    return content if isinstance(content, Mapping) else None


def _number(entry: Mapping[str, Any]) -> int:
    value = entry.get("error_number", entry.get("error_code", entry.get("errno", 0)))
    return value if isinstance(value, int) else 0


def _text(entry: Mapping[str, Any]) -> str:
    parts = [str(entry[key]) for key in ("description", "error") if entry.get(key)]
    return ": ".join(dict.fromkeys(parts))


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _trust(target: Target) -> ssl.SSLContext | bool:
    """Return what checks the server's certificate. Raises ConfigError for a wrong ca_file."""
    if not target.url.startswith("https://"):
        return False
    try:
        return tightened(ssl.create_default_context(cafile=target.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"scheduler.rest.ca_file: {target.ca_file}: {error}") from None
