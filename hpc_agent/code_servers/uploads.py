"""Tells the control plane what a code location holds, or why it does not load."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from hpc_agent.code_servers.definitions import Definitions, read_definitions
from hpc_agent.code_servers.deploy_data import as_told
from hpc_agent.code_servers.direct_upload import DirectUpload, NoDirectUploadsError
from hpc_agent.code_servers.legacy_upload import LegacyUpload
from hpc_agent.config import CodeServers
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.dagster_plus.serdes import Packed
from hpc_agent.errors import ControlPlaneError
from hpc_agent.grpc.client import CodeServerClient
from hpc_agent.store.code_servers import CodeServer

log = logging.getLogger(__name__)

_JOBS_AT_ONCE = 4
_LONGEST_WORDS = 2000

Result = TypeVar("Result")
IsWanted = Callable[[], Awaitable[bool]]


class Scheme(Protocol):
    """One way of getting definitions to the control plane."""

    async def pack(self, deployment: str, definitions: Definitions) -> Packed:
        """Return the message about a location; what it refers to is stored then."""

    async def send(self, deployment: str, message: Packed) -> Packed:
        """Send the message; return the control plane's answer."""

    async def job(
        self, deployment: str, server: CodeServerClient, location: str, repository: str, name: str
    ) -> None:
        """Send the snapshot of one job."""

    async def error(
        self, deployment: str, location: str, deploy_data: Packed, serialized_error: str
    ) -> Packed:
        """Tell why a location does not load; return the control plane's answer."""


class Uploads:
    """Uploads by the configured scheme, or by the one that the control plane turns out to know."""

    def __init__(self, api: AgentApi, settings: CodeServers) -> None:
        self._legacy = LegacyUpload(api)
        self._scheme: Scheme = (
            DirectUpload(api) if settings.snapshot_uploads == "direct" else self._legacy
        )

    async def definitions(
        self, server: CodeServer, client: CodeServerClient, *, is_wanted: IsWanted | None = None
    ) -> str | None:
        """Send the definitions of a code location; return what the control plane says of it.

        ``is_wanted`` is asked before each sending; None is returned where it says no. Raises
        CodeLocationLoadError when the code does not load (``error`` tells that), CodeServerError
        and ControlPlaneError.
        """
        found = await read_definitions(
            client, location=server.location, deploy_data=server.deploy_data
        )
        return await self._known(lambda scheme: _upload(scheme, server, client, found, is_wanted))

    async def error(self, server: CodeServer, serialized_error: str) -> None:
        """Tell the control plane why a code location does not load. Raises ControlPlaneError."""
        deploy_data = as_told(server.deploy_data)
        answer = await self._known(
            lambda scheme: scheme.error(
                server.deployment, server.location, deploy_data, serialized_error
            )
        )
        if "updated" not in answer:
            raise ControlPlaneError("the control plane's answer about a location cannot be read")

    async def _known(self, work: Callable[[Scheme], Awaitable[Result]]) -> Result:
        """Do it by the scheme in use; a control plane that has never heard of it gets the other."""
        try:
            return await work(self._scheme)
        except NoDirectUploadsError:
            log.info("the control plane knows no direct uploads of snapshots: using the legacy way")
            self._scheme = self._legacy
        return await work(self._scheme)


async def _upload(
    scheme: Scheme,
    server: CodeServer,
    client: CodeServerClient,
    definitions: Definitions,
    is_wanted: IsWanted | None,
) -> str | None:
    message = await scheme.pack(server.deployment, definitions)
    if is_wanted is not None and not await is_wanted():
        return None
    answer = await scheme.send(server.deployment, message)
    if not answer.get("updated"):
        await _upload_jobs(scheme, server, client, _missing(answer))
        if is_wanted is not None and not await is_wanted():
            return None
        answer = await scheme.send(server.deployment, message)
    if not answer.get("updated"):
        raise ControlPlaneError(
            f"{server.deployment}/{server.location}: the control plane did not take the "
            f"definitions: {_words(answer)}"
        )
    return _words(answer)


def _words(answer: Packed) -> str:
    return str(answer.get("message") or "")[:_LONGEST_WORDS]


def _missing(answer: Packed) -> list[tuple[str, str]]:
    """Return repository and job of each snapshot that is asked for. Raises ControlPlaneError."""
    selectors = answer.get("missing_job_snapshots") or []
    try:
        jobs = [(each["repository_name"], each["job_name"]) for each in selectors]
    except (TypeError, LookupError):
        jobs = [("", "")]
    if not all(name and isinstance(name, str) for job in jobs for name in job):
        raise ControlPlaneError("the control plane does not say which jobs' snapshots it lacks")
    return jobs


async def _upload_jobs(
    scheme: Scheme,
    server: CodeServer,
    client: CodeServerClient,
    jobs: Sequence[tuple[str, str]],
) -> None:
    slots = asyncio.Semaphore(_JOBS_AT_ONCE)

    async def upload(repository: str, job: str) -> None:
        async with slots:
            await scheme.job(server.deployment, client, server.location, repository, job)

    # Not a task group: its ExceptionGroup would hide which error it was.
    results = await asyncio.gather(*(upload(*each) for each in jobs), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
