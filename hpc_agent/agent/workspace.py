"""The workspace loop: which code locations there should be, and the servers that make them so."""

from __future__ import annotations

import logging

from hpc_agent.agent.context import Context
from hpc_agent.agent.deployments import check_deployments
from hpc_agent.agent.loop import Backoff
from hpc_agent.code_servers.bring_up import BringUp
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.location_state import LocationState
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.agent_calls import Deployment
from hpc_agent.dagster_plus.serdes import dumps, error_info
from hpc_agent.jobs.wording import describe
from hpc_agent.store.code_servers import CodeServer, ServerStatus

log = logging.getLogger(__name__)

# CHECK_WORKSPACE_INTERVAL_SECONDS of the stock agent.
INTERVAL_SECONDS = 5.0
_REPEAT_SECONDS = 10.0
_LONGEST_REPEAT_SECONDS = 600.0


class WorkspaceLoop:
    """Reconciles the fleet and looks after servers that are starting."""

    def __init__(self, context: Context, fleet: Fleet, bring_up: BringUp) -> None:
        self._context = context
        self._fleet = fleet
        self._bring_up = bring_up
        self._checked = False
        self._repeats: dict[str, tuple[float, Backoff]] = {}

    async def step(self) -> float:
        """Ask what is desired, reconcile, start the tasks that follow from it."""
        context = self._context
        if not self._checked:
            await check_deployments(context.api, context.config.control_plane)
            self._checked = True
        question = await self._fleet.question()
        answer: list[Deployment] = []
        if question.deployments:
            answer = await agent_calls.workspace_entries(
                context.api, question.deployments, queues=context.config.agent_queues.names
            )
        states = await self._fleet.reconcile(question, answer)
        keys = {state.server.key for state in states if state.server is not None}
        self._repeats = {key: value for key, value in self._repeats.items() if key in keys}
        for state in states:
            if state.server is not None:
                self._look_after(state, state.server)
        return INTERVAL_SECONDS

    def _look_after(self, state: LocationState, server: CodeServer) -> None:
        if server.status is ServerStatus.STARTING:
            self._context.tasks.start(
                f"code server {server.key}", self._bring_up.run(server), server.log_fields
            )
        elif server.status is ServerStatus.SERVING and _is_lost_there(state):
            if self._is_time_to_repeat(server):
                self._context.tasks.start(
                    f"upload {server.key}", self._bring_up.upload_again(server), server.log_fields
                )
        elif server.status is ServerStatus.FAILED and not state.location.entry.has_load_error:
            words = describe(state.worker) if state.worker else "it failed"
            error = server.error or dumps(error_info(f"code server: {words}"))
            if self._is_time_to_repeat(server):
                self._context.tasks.start(
                    f"error {server.key}",
                    self._bring_up.tell_error(server, error),
                    server.log_fields,
                )
        else:
            self._repeats.pop(server.key, None)

    def _is_time_to_repeat(self, server: CodeServer) -> bool:
        """At once, and then ever more rarely: it may be the control plane that is not content."""
        now = self._context.clock()
        due, backoff = self._repeats.get(
            server.key, (0.0, Backoff(first=_REPEAT_SECONDS, longest=_LONGEST_REPEAT_SECONDS))
        )
        if now < due:
            return False
        self._repeats[server.key] = now + backoff.next(), backoff
        return True


def _is_lost_there(state: LocationState) -> bool:
    """Whether the control plane shows an error, or old definitions, of what serves well here."""
    entry = state.location.entry
    return entry.has_load_error or entry.has_outdated_data
