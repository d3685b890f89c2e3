"""The serve loop: every request that has no answer yet is worked on, each in a task of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from hpc_agent.agent import answers
from hpc_agent.agent.context import Context
from hpc_agent.agent.loop import Crew
from hpc_agent.agent.run_requests import RunRequests
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.dagster_plus import requests, responses
from hpc_agent.dagster_plus.instance_ref import instance_ref
from hpc_agent.dagster_plus.serdes import Packed, dumps, error_info_of
from hpc_agent.errors import HpcAgentError
from hpc_agent.grpc import client as grpc
from hpc_agent.grpc.client import CodeServerClient, UnaryCall
from hpc_agent.store import inbox
from hpc_agent.store.inbox import Request

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
_SERVER_WAIT_SECONDS = 50.0  # below the 60 s that the caller of the control plane waits
_MARGIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _ServerCall:
    """A request that is one call of the location's code server."""

    call: UnaryCall
    with_instance: bool = False


_SERVER_CALLS: Mapping[str, _ServerCall] = {
    requests.GET_EXTERNAL_EXECUTION_PLAN: _ServerCall(grpc.EXECUTION_PLAN, with_instance=True),
    requests.GET_SUBSET_EXTERNAL_PIPELINE_RESULT: _ServerCall(grpc.JOB_SUBSET),
    requests.GET_EXTERNAL_PARTITION_CONFIG: _ServerCall(grpc.PARTITION_CONFIG),
    requests.GET_EXTERNAL_PARTITION_TAGS: _ServerCall(grpc.PARTITION_TAGS),
    requests.GET_EXTERNAL_PARTITION_NAMES: _ServerCall(grpc.PARTITION_NAMES),
    requests.GET_EXTERNAL_PARTITION_SET_EXECUTION_PARAM_DATA: _ServerCall(grpc.PARTITION_SET),
    requests.GET_EXTERNAL_SCHEDULE_EXECUTION_DATA: _ServerCall(grpc.SCHEDULE, with_instance=True),
    requests.GET_EXTERNAL_SENSOR_EXECUTION_DATA: _ServerCall(grpc.SENSOR, with_instance=True),
}

_OTHER_SERVER_CALLS = frozenset(
    {requests.GET_EXTERNAL_NOTEBOOK_DATA, requests.REFRESH_COMPONENT_STATE}
)


class ServeLoop:
    """Answers requests. One that waits for a code server delays no other."""

    def __init__(self, context: Context, fleet: Fleet, crew: Crew) -> None:
        self._context = context
        self._fleet = fleet
        self._crew = crew
        self._runs = RunRequests(context)

    async def step(self) -> float:
        """Start a task for every request without one."""
        for request in await self._context.store.run(inbox.unanswered):
            name = f"request {request.request_id}"
            if not self._crew.is_busy(name):
                self._crew.start(name, self._serve(request))
        return _IDLE_SECONDS

    async def _serve(self, request: Request) -> None:
        context = self._context
        started = context.clock()
        try:
            response = await self._answer(request)
        except HpcAgentError as error:
            log.warning("%s %s: %s", request.api, request.request_id, error)
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
        args = requests.arguments(request.body)
        match request.api:
            case requests.LAUNCH_RUN:
                return await self._runs.launch(request, requests.run_of(args))
            case requests.TERMINATE_RUN:
                return await self._runs.terminate(request, requests.run_of(args))
            case requests.CHECK_FOR_WORKSPACE_UPDATES:
                self._context.bells.workspace.ring()
                return responses.success()
            case requests.PING_LOCATION:
                return responses.success()
            case api if api in _SERVER_CALLS or api in _OTHER_SERVER_CALLS:
                return await self._ask_server(request, args)
            case api:
                log.warning("request %s: unknown kind %s", request.request_id, api)
                return responses.unknown(api)

    async def _ask_server(self, request: Request, args: Mapping[str, Any]) -> Packed:
        location = requests.location_of(args)
        if location is None:
            raise HpcAgentError(f"{request.api}: the request names no code location")
        async with self._fleet.use(
            request.deployment, location, wait_seconds=_SERVER_WAIT_SECONDS
        ) as server:
            return responses.grpc_answer(await self._call(server, request, args))

    async def _call(
        self, server: CodeServerClient, request: Request, args: Mapping[str, Any]
    ) -> str:
        if request.api == requests.GET_EXTERNAL_NOTEBOOK_DATA:
            return (await server.notebook(str(args.get("notebook_path")))).decode()
        if request.api == requests.REFRESH_COMPONENT_STATE:
            return await server.refresh_components(list(args.get("defs_state_keys") or []))
        server_call = _SERVER_CALLS[request.api]
        serialized = dumps(args)
        if server_call.with_instance:
            reference = instance_ref(
                request.deployment,
                self._context.config.compute_logs,
                local_directory="/tmp",  # noqa: S108
            )
            serialized = requests.with_instance_ref(args, reference)
        return await server.call(server_call.call, serialized, deadline_seconds=_deadline(args))


def _deadline(args: Mapping[str, Any]) -> float:
    """A schedule or sensor brings its own time limit along."""
    given = args.get("timeout")
    if isinstance(given, int | float):
        return float(given) + _MARGIN_SECONDS
    return grpc.DEFAULT_TIMEOUT_SECONDS
