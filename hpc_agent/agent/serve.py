"""The serve loop: every request that has no answer yet is worked on, each in a task of its own."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.agent.server_calls import SERVER_REQUESTS, call_server
from hpc_agent.agent.tasks import Tasks
from hpc_agent.code_servers.calls import Calls
from hpc_agent.code_servers.demand import Demand, Place
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.workspace import not_allowed
from hpc_agent.dagster_plus import requests, responses
from hpc_agent.dagster_plus.requests import Opened
from hpc_agent.dagster_plus.serdes import Packed, error_info_of
from hpc_agent.errors import (
    CodeServerUnavailableError,
    ControlPlaneAuthError,
    ControlPlaneUnavailableError,
    HpcAgentError,
    SchedulerUnavailableError,
)
from hpc_agent.runs import answers
from hpc_agent.runs.requests import RunRequests
from hpc_agent.store import inbox
from hpc_agent.store.inbox import Request

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
# For a request that does not say when it expires: below the 60 s that callers usually wait.
_SERVER_WAIT_SECONDS = 50.0
# An explanation must be there before its reader has gone.
_EXPLAIN_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 1.0
_TASK = "request "
_KNOWN = SERVER_REQUESTS | {
    requests.LAUNCH_RUN,
    requests.TERMINATE_RUN,
    requests.CHECK_FOR_WORKSPACE_UPDATES,
    requests.PING_LOCATION,
}


class ServeLoop:
    """Answers requests. One that waits for a code server delays no other."""

    def __init__(
        self, context: Context, *, fleet: Fleet, calls: Calls, demand: Demand, tasks: Tasks
    ) -> None:
        self._context = context
        self._fleet = fleet
        self._calls = calls
        self._demand = demand
        self._tasks = tasks
        self._runs = RunRequests(context)

    def load(self) -> int:
        """Return how many requests are worked on."""
        return self._tasks.count(_TASK)

    async def step(self) -> float:
        """Start a task for every request without one."""
        for request in await self._context.store.run(inbox.unanswered):
            name = f"{_TASK}{request.request_id}"
            if not self._tasks.is_busy(name):
                self._tasks.start(name, self._serve(request))
        return _IDLE_SECONDS

    async def _serve(self, request: Request) -> None:
        context = self._context
        started = context.clock()
        try:
            response = await self._answer(request)
        except (
            ControlPlaneUnavailableError,
            ControlPlaneAuthError,
            SchedulerUnavailableError,
        ) as error:
            # Nothing is known, so nothing is answered: the next step takes it up again.
            log.warning("%s %s waits: %s", request.api, request.request_id, error)
            return
        except HpcAgentError as error:
            log.warning("%s %s: %s", request.api, request.request_id, error)
            context.errors.add(context.clock(), f"{request.api}: {error}")
            response = responses.failure(str(error))
        except Exception as error:
            log.exception("%s %s failed", request.api, request.request_id)
            context.errors.add(context.clock(), f"{request.api}: {error!r}")
            response = responses.failure(error_info_of(error))
        if response is None:
            return
        answer = response
        now = context.clock()

        def write(db: Database) -> None:
            answers.give(db, request.request_id, answer, now=now, started_at=started)

        await context.store.run(write)
        context.bells.report.ring()

    async def _answer(self, request: Request) -> Packed | None:
        """Return the answer, or None when whoever submits the job will give it."""
        if request.api in requests.DEPRECATED:
            return responses.failure(
                f"{request.api} is deprecated in the agent API, and this agent does not carry it "
                "out; a newer control plane does not send it"
            )
        if request.api not in _KNOWN:
            log.warning(
                "request %s: unknown kind %s; is this agent older than its control plane?",
                request.request_id,
                request.api,
            )
            return responses.unknown(request.api)
        opened = requests.opened(request.body)
        match request.api:
            case requests.LAUNCH_RUN | requests.TERMINATE_RUN:
                return await self._about_run(request, opened)
            case requests.CHECK_FOR_WORKSPACE_UPDATES:
                return await self._check_workspace(request)
            case requests.PING_LOCATION:
                return self._ping(request, opened)
            case _:
                return await self._ask_server(request, opened)

    async def _about_run(self, request: Request, opened: Opened) -> Packed | None:
        run, is_late = requests.run_of(opened.args), self._is_late(opened)
        if request.api == requests.LAUNCH_RUN:
            return await self._runs.launch(request, run, is_late=is_late)
        return await self._runs.terminate(request, run, is_late=is_late)

    async def _check_workspace(self, request: Request) -> Packed:
        """Outdated locations get servers even where those have a time to live."""
        self._demand.check(request.deployment)
        await self._fleet.remember()
        self._context.bells.workspace.ring()
        return responses.success()

    def _ping(self, request: Request, opened: Opened) -> Packed:
        """Somebody looks at the location: its server is kept, or started."""
        place = request.deployment, self._location_of(request, opened)
        self._demand.note(place, is_branch=request.is_branch_deployment)
        self._context.bells.workspace.ring()
        return responses.success()

    async def _ask_server(self, request: Request, opened: Opened) -> Packed:
        if self._is_late(opened):
            raise HpcAgentError(_expired(request, opened))
        place = request.deployment, self._location_of(request, opened)
        now = asyncio.get_running_loop().time
        deadline = now() + self._patience(opened)
        while True:
            try:
                answer = await self._call(place, request, opened, wait_seconds=deadline - now())
            except CodeServerUnavailableError as error:
                # A server that goes takes its calls along. Its successor may be up in time.
                if deadline - now() <= _ASK_AGAIN_SECONDS:
                    raise
                log.info("%s %s: %s (asking again)", request.api, request.request_id, error)
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
            else:
                return responses.grpc_answer(answer)

    async def _call(
        self, place: Place, request: Request, opened: Opened, *, wait_seconds: float
    ) -> str:
        is_branch = request.is_branch_deployment
        async with self._calls.use(place, is_branch=is_branch, wait_seconds=wait_seconds) as server:
            return await call_server(
                server,
                request.api,
                opened.args,
                deployment=request.deployment,
                compute_logs=self._context.config.compute_logs,
            )

    def _location_of(self, request: Request, opened: Opened) -> str:
        location = requests.location_of(opened.args)
        if location is None:
            raise HpcAgentError(f"{request.api}: the request names no code location")
        is_branch = request.is_branch_deployment
        if not self._context.config.allows(request.deployment, location, is_branch=is_branch):
            words = not_allowed(request.deployment, location, is_branch=is_branch)
            raise HpcAgentError(f"this agent may not serve code location {words}")
        return location

    def _is_late(self, opened: Opened) -> bool:
        return self._left(opened) <= 0

    def _patience(self, opened: Opened) -> float:
        if opened.expire_at is None:
            return _SERVER_WAIT_SECONDS
        return max(self._left(opened) - _EXPLAIN_SECONDS, 0.0)

    def _left(self, opened: Opened) -> float:
        """Return the seconds until a request expires, by the control plane's clock."""
        if opened.expire_at is None:
            return _SERVER_WAIT_SECONDS
        return opened.expire_at - self._context.api.server_time(self._context.clock())


def _expired(request: Request, opened: Opened) -> str:
    at = datetime.fromtimestamp(opened.expire_at or 0.0, UTC)
    return (
        f"{request.api} has expired at {at:%Y-%m-%d %H:%M:%S} UTC, before this agent came to it: "
        "nothing was done"
    )
