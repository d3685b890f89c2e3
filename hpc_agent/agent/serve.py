"""The serve loop: every request that has no answer yet is worked on, each in a task of its own.

Requests about one run are worked on in the order in which they came: a termination that arrives
with its launch finds what it is to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.agent.loop import Backoff
from hpc_agent.agent.server_calls import SERVER_REQUESTS, call_server
from hpc_agent.agent.traces import request_span
from hpc_agent.code_servers.calls import Calls
from hpc_agent.code_servers.demand import Demand, Place
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.workspace import not_allowed
from hpc_agent.dagster_plus import requests, responses
from hpc_agent.dagster_plus.instance_ref import instance_ref
from hpc_agent.dagster_plus.requests import Opened
from hpc_agent.dagster_plus.serdes import Packed, error_info_of
from hpc_agent.errors import (
    CodeServerTimeoutError,
    CodeServerUnavailableError,
    ControlPlaneAuthError,
    ControlPlaneError,
    ControlPlaneUnavailableError,
    FilesUnavailableError,
    HpcAgentError,
    SchedulerUnavailableError,
    StoreError,
)
from hpc_agent.journal.about import Fields, about
from hpc_agent.metrics.agent import REQUESTS
from hpc_agent.runs.requests import RunRequests
from hpc_agent.runs.step_needs import StepNeeds
from hpc_agent.store import inbox
from hpc_agent.store.inbox import Request
from hpc_agent.workers import answers, run_log

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_IDLE_SECONDS = 60.0
# For a request that does not say when it expires: below the 60 s that callers usually wait.
_SERVER_WAIT_SECONDS = 50.0
# An explanation must be there before its reader has gone.
_EXPLAIN_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 1.0
_LEAST_CALL_SECONDS = 1.0
_TASK = "request "
_LONGEST_RETRY_SECONDS = 15.0
# Nothing is known, or nothing can be written: what is asked for may go another time.
_COMES_BACK = (
    ControlPlaneUnavailableError,
    ControlPlaneAuthError,
    SchedulerUnavailableError,
    FilesUnavailableError,
    StoreError,
)
_ABOUT_RUNS = frozenset({requests.LAUNCH_RUN, requests.TERMINATE_RUN})
_KNOWN = SERVER_REQUESTS | {
    *_ABOUT_RUNS,
    requests.CHECK_FOR_WORKSPACE_UPDATES,
    requests.PING_LOCATION,
}


@dataclass(frozen=True, slots=True)
class _Launch:
    """A run that is no worker yet."""

    deployment: str
    run_id: str | None
    job_name: str | None
    step: None = None


class ServeLoop:
    """Answers requests. One that waits for a code server delays no other."""

    def __init__(self, context: Context, *, fleet: Fleet, calls: Calls, demand: Demand) -> None:
        self._context = context
        self._fleet = fleet
        self._calls = calls
        self._demand = demand
        self._runs = RunRequests(
            config=context.config,
            store=context.store,
            api=context.api,
            preparation=context.preparation,
            termination=context.termination,
            changes=context.changes,
            needs=StepNeeds(calls) if context.config.runs.step_resources else None,
            partitions=context.partitions,
            tracer=context.tracer,
            clock=context.clock,
            wall=context.wall,
        )
        self._at_work: set[str] = set()
        self._in_turn: dict[str, deque[Request]] = {}

    def load(self) -> int:
        """Return how many requests are worked on."""
        return self._context.tasks.count(_TASK)

    async def step(self) -> float:
        """Start a task for every request without one; those of one run share one."""
        store = self._context.store
        new = [each for each in await store.run(inbox.to_serve) if each not in self._at_work]
        async for some in store.in_parts(new, inbox.still_to_serve):
            for request in some:
                self._begin(request)
        return _IDLE_SECONDS

    def _begin(self, request: Request) -> None:
        """Let a request be worked on after those before it that are about the same run."""
        order = _order_of(request)
        self._at_work.add(request.request_id)
        self._in_turn.setdefault(order, deque()).append(request)
        if not self._context.tasks.is_busy(f"{_TASK}{order}"):
            self._context.tasks.start(f"{_TASK}{order}", self._serve_in_turn(order))

    async def _serve_in_turn(self, order: str) -> None:
        """Serve what is in the queue of this order; what an error leaves there is begun again."""
        turn = self._in_turn[order]
        try:
            while turn:
                await self._serve(turn[0])
                self._at_work.discard(turn.popleft().request_id)
        finally:
            del self._in_turn[order]
            self._at_work.difference_update(request.request_id for request in turn)

    async def _serve(self, request: Request) -> None:
        """Answer a request; where nothing is known yet, nothing is answered: it is tried again."""
        fields = _fields_of(request)
        with about(fields):
            await self._serve_now(request, fields)

    async def _serve_now(self, request: Request, fields: Fields) -> None:
        started, began = self._context.wall(), self._context.clock()
        response = await self._patiently(request, lambda: self._response_to(request))
        self._measure(request, response, self._context.clock() - began)
        if response is not None:
            answer = response
            await self._patiently(request, lambda: self._give(request, answer, started))
        ended = self._context.wall()
        self._context.tracer.add(request_span(request, fields, response, started, ended))

    def _measure(self, request: Request, response: Packed | None, seconds: float) -> None:
        api = request.api if request.api in _KNOWN else "other"
        outcome = "submitted" if response is None else "answered"
        if responses.is_failure(response):
            outcome = "failed"
        self._context.meter.observe(REQUESTS, seconds, api, outcome)

    async def _patiently(self, request: Request, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do some work on a request, again until what it needs is there; the run is told why."""
        backoff, told = Backoff(longest=_LONGEST_RETRY_SECONDS), ""
        while True:
            try:
                return await work()
            except _COMES_BACK as error:
                words = str(error)
                if words != told:
                    log.warning("%s %s waits: %s", request.api, request.request_id, words)
                    told = words
                    with contextlib.suppress(StoreError):
                        await self._tell_run(request, error)
            await asyncio.sleep(backoff.next())

    async def _response_to(self, request: Request) -> Packed | None:
        """Return the answer, also where it is that something went wrong.

        Raises what may be another time otherwise.
        """
        context = self._context
        try:
            return await self._answer(request)
        except _COMES_BACK:
            raise
        except HpcAgentError as error:
            log.warning("%s %s: %s", request.api, request.request_id, error)
            context.errors.add(context.wall(), f"{request.api}: {error}")
            return responses.failure(str(error))
        except Exception as error:
            log.exception("%s %s failed", request.api, request.request_id)
            context.errors.add(context.wall(), f"{request.api}: {error!r}")
            return responses.failure(error_info_of(error))

    async def _give(self, request: Request, answer: Packed, started: float) -> None:
        wall = self._context.wall()

        def write(db: Database) -> None:
            answers.give(db, request.request_id, answer, now=wall, started_at=started)

        await self._context.store.run(write)

    async def _tell_run(self, request: Request, error: HpcAgentError) -> None:
        """Let a run's log say what its launch waits for, unless it is the control plane itself."""
        if request.api != requests.LAUNCH_RUN or isinstance(error, ControlPlaneError):
            return
        run = requests.run_of(requests.opened(request.body).args)
        about = _Launch(request.deployment, run.run_id, run.job_name)
        wall, line = self._context.wall(), f"The launch of the run waits: {error}"
        await self._context.store.run(lambda db: run_log.say_line(db, about, line, now=wall))

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
                answer = await self._call(place, request, opened, deadline=deadline)
            except CodeServerTimeoutError:
                raise
            except CodeServerUnavailableError as error:
                # A server that was ended takes its calls along. Its successor may be up in time.
                if deadline - now() <= _ASK_AGAIN_SECONDS:
                    raise
                log.info("%s %s: %s (asking again)", request.api, request.request_id, error)
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
            else:
                return responses.grpc_answer(answer)

    async def _call(
        self, place: Place, request: Request, opened: Opened, *, deadline: float
    ) -> str:
        is_branch, config = request.is_branch_deployment, self._context.config
        instance = instance_ref(
            request.deployment, config.compute_logs, config.python_logs_of(place[1])
        )
        now = asyncio.get_running_loop().time
        wait = deadline - now()
        async with self._calls.use(place, is_branch=is_branch, wait_seconds=wait) as server:
            seconds = max(deadline - now(), _LEAST_CALL_SECONDS)
            return await call_server(
                server, request.api, opened.args, instance=instance, seconds=seconds
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
        return opened.expire_at - self._context.api.server_time(self._context.wall())


def _order_of(request: Request) -> str:
    """Return what requests have in common that must be worked on one after the other."""
    if request.api not in _ABOUT_RUNS:
        return request.request_id
    try:
        return f"run {requests.run_of(requests.opened(request.body).args).run_id}"
    except Exception:  # noqa: BLE001 - whoever answers it says what is wrong with it
        return request.request_id


def _fields_of(request: Request) -> Fields:
    """Return what lines of the log about a request carry."""
    fields = {"request_id": request.request_id, "deployment": request.deployment}
    try:
        args = requests.opened(request.body).args
        location = requests.location_of(args)
        run = requests.run_of(args) if request.api in _ABOUT_RUNS else None
    except Exception:  # noqa: BLE001 - whoever answers it says what is wrong with it
        return fields
    return {**fields, "location": location, "run_id": run.run_id if run else None}


def _expired(request: Request, opened: Opened) -> str:
    at = datetime.fromtimestamp(opened.expire_at or 0.0, UTC)
    return (
        f"{request.api} has expired at {at:%Y-%m-%d %H:%M:%S} UTC, before this agent came to it: "
        "nothing was done"
    )
