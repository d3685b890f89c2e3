"""Launching and canceling runs through an agent.

A launch is durable once enqueued: whoever asked may go away. Its answer is handled by the task that
waits for it, or by ``settle`` when none does any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dagster import DagsterInstance, DagsterRun
from dagster._grpc.types import CancelExecutionResult, StartRunResult
from dagster_cloud.api.dagster_cloud_api import (
    DagsterCloudApi,
    DagsterCloudApiErrorResponse,
    DagsterCloudApiUnknownCommandResponse,
    LaunchRunArgs,
    TerminateRunArgs,
)
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import deserialize_value

from hpc_agent.control_plane.agents_seen import AgentsSeen, moment
from hpc_agent.control_plane.faces.view import LocationView, error_info
from hpc_agent.control_plane.request_queue import Ask, RequestQueue
from hpc_agent.control_plane.run_origins import named
from hpc_agent.control_plane.store.requests import Request
from hpc_agent.journal.about import about

# Long enough to hand a refusal back to whoever asked; Dagster's queue launches no other run on this
# thread meanwhile. A later answer is settled without it.
START_WAIT_SECONDS = 1.0


class RunRequests:
    """Turns StartRun and CancelExecution into requests, and late answers into events."""

    def __init__(
        self, instance: DagsterInstance, queue: RequestQueue, seen: Callable[[], AgentsSeen]
    ) -> None:
        """``seen`` looks at what is known of the agents; it blocks."""
        self._instance = instance
        self._queue = queue
        self._seen = seen

    async def start(
        self, run_id: str, view: LocationView, wait_seconds: float = START_WAIT_SECONDS
    ) -> StartRunResult:
        """Launch a run: success means that an agent took it, or that the request is on disk."""
        run = await self._run(run_id)
        if run is None or run.is_finished:
            state = "is unknown" if run is None else f"has finished as {run.status.value}"
            return _refused(f"run {run_id} {state}: not launched")
        open_launch = await self._queue.open_request(
            DagsterCloudApi.LAUNCH_RUN, deployment=view.deployment, run_id=run_id
        )
        request_id = (
            open_launch.request_id
            if open_launch
            else await self._enqueue_launch(run, view, wait_seconds)
        )
        answered = await self._queue.act_on_answer(request_id, wait_seconds)
        error = _error_of(answered)
        if error is not None:
            return _refused(f"the agent could not launch the run: {error.message}", error)
        return StartRunResult(success=True, message=None, serializable_error_info=None)

    async def cancel(self, run_id: str, view: LocationView) -> CancelExecutionResult:
        """Cancel a run: at once when no agent has taken its launch, else by asking the agent."""
        run = await self._run(run_id)
        if run is None or run.is_finished:
            return _canceled(success=False, message=f"run {run_id} is not running")
        launch = await self._queue.open_request(
            DagsterCloudApi.LAUNCH_RUN, deployment=view.deployment, run_id=run_id
        )
        if launch is not None and await self._queue.withdraw(launch.request_id):
            message = "Canceled before an agent took the run."
            await asyncio.to_thread(self._instance.report_run_canceled, run, message)
            return _canceled(success=True)
        terminate = DagsterCloudApi.TERMINATE_RUN
        pending = await self._queue.open_request(
            terminate, deployment=view.deployment, run_id=run_id
        )
        if pending is None:
            args = TerminateRunArgs(dagster_run=named(run, view.name))
            launched = await self._queue.last_launch(run_id, deployment=view.deployment)
            # Its location may have moved to another queue since: those agents know nothing of it.
            queue = view.agent_queue if launched is None else launched.agent_queue
            await self._queue.enqueue(
                Ask(
                    api=terminate, args=args, deployment=view.deployment,
                    is_branch=view.is_branch, agent_queue=queue, run_id=run_id,
                )
            )  # fmt: skip
        return _canceled(success=True)

    async def can_cancel(self, run_id: str) -> bool:
        run = await self._run(run_id)
        return run is not None and not run.is_finished

    async def settle(self, request: Request) -> None:
        """Report the error of a launch or termination for which nobody waits any more."""
        with about({"request_id": request.request_id, "run_id": request.run_id}):
            await self._settle(request)

    async def _settle(self, request: Request) -> None:
        error = _error_of(request)
        if error is None or request.run_id is None:
            return
        run = await self._run(request.run_id)
        if run is None or run.is_finished:
            return
        if request.api == DagsterCloudApi.LAUNCH_RUN.name:
            message = f"The agent could not launch the run.\n{error}"
            await asyncio.to_thread(self._instance.report_run_failed, run, message)
        else:
            message = f"The agent could not terminate the run.\n{error}"
            await asyncio.to_thread(self._instance.report_engine_event, message, run)

    async def tell_wait(self, launch: Request) -> None:
        """Let a run's log say that its launch waits for an agent, which is no wait in a queue."""
        run = await self._run(launch.run_id) if launch.run_id else None
        if run is None or run.is_finished:
            return
        seen = await asyncio.to_thread(self._seen)
        queue = f" that serves agent queue {launch.agent_queue!r}" if launch.agent_queue else ""
        there = "an agent is connected" if seen.is_any_alive else "no agent is connected"
        message = (
            f"The launch waits for an agent{queue}: since {moment(launch.created_at)} none has "
            f"taken it; {there}, and {seen.last_heartbeat}"
        )
        await asyncio.to_thread(self._instance.report_engine_event, message, run)

    async def _enqueue_launch(
        self, run: DagsterRun, view: LocationView, wait_seconds: float
    ) -> str:
        args = LaunchRunArgs(dagster_run=named(run, view.name))
        return await self._queue.enqueue(
            Ask(
                api=DagsterCloudApi.LAUNCH_RUN, args=args, deployment=view.deployment,
                is_branch=view.is_branch, agent_queue=view.agent_queue, run_id=run.run_id,
            ),
            acting_for=wait_seconds,
        )  # fmt: skip

    async def _run(self, run_id: str) -> DagsterRun | None:
        return await asyncio.to_thread(self._instance.get_run_by_id, run_id)


def _error_of(request: Request | None) -> SerializableErrorInfo | None:
    if request is None or request.response is None:
        return None
    answer = deserialize_value(request.response)
    if isinstance(answer, DagsterCloudApiErrorResponse):
        return answer.error_infos[0] if answer.error_infos else error_info("no reason given")
    if isinstance(answer, DagsterCloudApiUnknownCommandResponse):
        return error_info(f"the agent does not know {request.api}: upgrade it")
    return None


def _refused(message: str, error: SerializableErrorInfo | None = None) -> StartRunResult:
    return StartRunResult(success=False, message=message, serializable_error_info=error)


def _canceled(*, success: bool, message: str | None = None) -> CancelExecutionResult:
    return CancelExecutionResult(success=success, message=message, serializable_error_info=None)
