"""The poll loop: takes requests and writes them down before anything else happens to them."""

from __future__ import annotations

import logging

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.agent_calls import PoppedRequest
from hpc_agent.errors import HpcAgentError
from hpc_agent.store import inbox
from hpc_agent.store.inbox import Request

log = logging.getLogger(__name__)

# The stock agent's interval; kept while work flows and nobody holds the poll open for us.
_BUSY_SECONDS = 0.5
_IDLE_SECONDS = 2.0
_BUSY_FOR_SECONDS = 60.0
# An answer to an empty long poll that comes sooner than this was no long poll.
_HELD_SECONDS = 1.0


class PollLoop:
    """Polls; ``connected`` says whether the last poll worked."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last_work = 0.0
        self.connected = False

    async def step(self) -> float:
        """Take what there is, write it down, and wake the serve loop."""
        context, settings = self._context, self._context.config.control_plane
        started = context.clock()
        try:
            popped = await agent_calls.pop_requests(
                context.api,
                settings.deployments,
                branch_deployments=settings.branch_deployments,
                queues=context.config.agent_queues.names,
                wait_seconds=self._wait_seconds(),
            )
        except HpcAgentError:
            self.connected = False
            raise
        now = context.clock()
        if popped:
            requests = [_request(item, now) for item in popped]
            await context.store.run(lambda db: inbox.receive(db, requests))
            self._last_work = now
            context.bells.serve.ring()
        if not self.connected:
            self._greet()
            return 0.0
        return 0.0 if popped else self._wait_after_nothing(now, held=now - started)

    def _greet(self) -> None:
        """The control plane is there (again): what has waited for it may go on."""
        log.info("connected to %s", self._context.config.control_plane.url)
        self.connected = True
        bells = self._context.bells
        for bell in (bells.workspace, bells.serve, bells.report, bells.conclude):
            bell.ring()

    def _wait_seconds(self) -> float:
        """The first poll is a short one: it tells soon whether the control plane is there."""
        return self._context.config.control_plane.long_poll_seconds if self.connected else 0.0

    def _wait_after_nothing(self, now: float, *, held: float) -> float:
        if held >= _HELD_SECONDS:
            return 0.0
        return _BUSY_SECONDS if now - self._last_work < _BUSY_FOR_SECONDS else _IDLE_SECONDS


def _request(popped: PoppedRequest, now: float) -> Request:
    return Request(
        popped.request_id,
        popped.request_api,
        popped.request_body,
        popped.deployment_name,
        popped.is_branch_deployment,
        now,
    )
