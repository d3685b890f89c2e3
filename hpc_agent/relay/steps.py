"""The face of the step API: runs ask for jobs of their own, and follow them (docs/steps.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hpc_agent.errors import HpcAgentError
from hpc_agent.relay import step_requests
from hpc_agent.relay.bodies import Bodies, understood
from hpc_agent.relay.gate import Gate
from hpc_agent.relay.identity import JobIdentity
from hpc_agent.relay.refusals import Refusal, unavailable
from hpc_agent.relay.step_requests import (
    AskedJob,
    AskedJobs,
    Followed,
    JobName,
    NamedJobs,
    StepChanges,
    StepStatus,
)

PATH = "/_hpc/steps"

T = TypeVar("T")


class StepDesk(Protocol):
    """Takes what runs ask for. Each method raises HpcAgentError when it cannot be done now."""

    async def submit(self, identity: JobIdentity, jobs: Sequence[AskedJob]) -> list[StepStatus]:
        """Take jobs; return how they stand, in their order. One that is known is left alone."""

    async def changes(self, identity: JobIdentity, asked: Followed) -> StepChanges:
        """Return the jobs that have changed, once there are some or the time is over."""

    async def cancel(self, identity: JobIdentity, jobs: Sequence[JobName]) -> None:
        """Let jobs end."""

    def directory(self, identity: JobIdentity, job: JobName) -> str:
        """Return the directory of a job, which may not be there yet."""


class StepRoutes:
    """Lets run workers, and the jobs of their steps, ask for jobs of their own run alone."""

    def __init__(self, gate: Gate, bodies: Bodies, desk: StepDesk) -> None:
        self._gate = gate
        self._bodies = bodies
        self._desk = desk

    def routes(self) -> list[Route]:
        """Return the routes of the API."""
        return [
            Route(PATH, self.submit, methods=["POST"]),
            Route(PATH, self.changes, methods=["GET"]),
            Route(f"{PATH}/cancel", self.cancel, methods=["POST"]),
            Route(f"{PATH}/directory", self.directory, methods=["POST"]),
        ]

    async def submit(self, request: Request) -> Response:
        """Ask for jobs."""
        identity = await self._identify(request)
        wanted = await self._bodies.parsed(
            request, lambda body: step_requests.asked(AskedJobs, body)
        )
        taken = await _done(self._desk.submit(identity, wanted.jobs))
        return JSONResponse({"jobs": [status.model_dump() for status in taken]})

    async def changes(self, request: Request) -> Response:
        """Wait for a change."""
        identity = await self._identify(request)
        asked = understood(step_requests.followed, request.query_params.multi_items())
        changes = await _done(self._desk.changes(identity, asked))
        return JSONResponse(changes.model_dump())

    async def cancel(self, request: Request) -> Response:
        """End jobs."""
        identity = await self._identify(request)
        named = await self._bodies.parsed(
            request, lambda body: step_requests.asked(NamedJobs, body)
        )
        await _done(self._desk.cancel(identity, named.jobs))
        return JSONResponse({})

    async def directory(self, request: Request) -> Response:
        """Say where the files of a job are."""
        identity = await self._identify(request)
        job = await self._bodies.parsed(request, lambda body: step_requests.asked(JobName, body))
        return JSONResponse({"directory": self._desk.directory(identity, job)})

    async def _identify(self, request: Request) -> JobIdentity:
        identity = await self._gate.identify(request)
        if identity.kind != "run_worker" or identity.run_id is None:
            raise Refusal(403, "only the jobs of a run may ask for further ones")
        return identity


async def _done(work: Awaitable[T]) -> T:
    try:
        return await work
    except HpcAgentError as error:
        raise unavailable(str(error)) from error
