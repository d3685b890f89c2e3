"""Requests to agents as tasks see them: enqueue and wait, pop and wait, answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final

from dagster_cloud.api.dagster_cloud_api import DagsterCloudApi, DagsterCloudApiRequest
from dagster_shared.serdes import serialize_value

from hpc_agent.control_plane.presence import AgentPresence
from hpc_agent.control_plane.request_spans import request_spans
from hpc_agent.control_plane.store.requests import (
    ANSWERED,
    ENQUEUED,
    Request,
    Requests,
)
from hpc_agent.control_plane.store.sightings import Sightings
from hpc_agent.control_plane.wakeup import WakeUp
from hpc_agent.traces.tracer import SILENT, Tracer

DATABASE_POLL_SECONDS = 1.0
"""How soon a request enqueued by another process is noticed without a notice."""

REDELIVER_AFTER_SECONDS = 60.0
ABANDONED_AFTER_SECONDS = 5.0
_SETTLED_WITHIN_SECONDS = 60.0
"""How long after its time a waiter may still act on its answer."""

WAIT_TOLD_AFTER_SECONDS = 20.0
"""An agent that is there takes a launch within moments."""

DURABLE_SECONDS: Final = 365 * 24 * 3600
DURABLE_APIS: Final = frozenset(
    {
        DagsterCloudApi.LAUNCH_RUN.name,
        DagsterCloudApi.TERMINATE_RUN.name,
        DagsterCloudApi.CHECK_FOR_WORKSPACE_UPDATES.name,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request to be made: what, of whom, and for how long the answer matters."""

    api: DagsterCloudApi
    args: Any
    deployment: str
    is_branch: bool = False
    agent_queue: str | None = None
    run_id: str | None = None
    timeout_seconds: float = DURABLE_SECONDS


class RequestQueue:
    """The request table plus the tasks that wait on it. All state that matters is in the table.

    Several gateways may share the table: each hands out what any of them enqueued, and hears of the
    others' requests and answers by ``heard``, or else by looking once a second.
    """

    def __init__(
        self,
        requests: Requests,
        presence: AgentPresence,
        sightings: Sightings | None = None,
        *,
        poll_seconds: float = DATABASE_POLL_SECONDS,
        tracer: Tracer = SILENT,
    ) -> None:
        self._requests = requests
        self._presence = presence
        self._sightings = sightings
        self._poll_seconds = poll_seconds
        self._tracer = tracer
        self._enqueued = WakeUp()
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def enqueue(self, ask: Ask, *, acting_for: float | None = None) -> str:
        """Store a request and wake the agents' long polls. Returns the request's id.

        ``acting_for`` is what the caller will give ``act_on_answer``: an agent may answer through
        another gateway before that is called.
        """
        request = new_request(ask)
        if acting_for is not None:
            request = replace(request, awaited_until=time.time() + acting_for)
        await asyncio.to_thread(self._requests.add, request)
        self._enqueued.call()
        return request.request_id

    def heard(self, topic: str) -> None:
        """Take in another gateway's notice; needs the event loop's thread."""
        if topic == ENQUEUED:
            self._enqueued.call()
        elif topic.startswith(ANSWERED):
            self._wake_waiters(topic.removeprefix(ANSWERED))

    async def wait_for_request(self, timeout: float) -> None:  # noqa: ASYNC109 see WakeUp.wait
        """Return when a request may be waiting, or after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        version = await asyncio.to_thread(self._requests.version)
        while (remaining := deadline - time.monotonic()) > 0:
            if await self._enqueued.wait(min(remaining, self._poll_seconds)):
                return
            if await asyncio.to_thread(self._requests.version) != version:
                return

    async def wait_for_answer(self, request_id: str, timeout: float) -> Request | None:  # noqa: ASYNC109
        """Return the settled request, or None when it is still open after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        event = asyncio.Event()
        self._waiters[request_id].add(event)
        try:
            while True:
                request = await asyncio.to_thread(self._requests.get, request_id)
                if request is None or not request.state.is_open:
                    return request
                remaining = deadline - time.monotonic()
                # An answer that came while we read was left to us: then read once more.
                if remaining <= 0 and not event.is_set():
                    return None
                await _wait(event, min(remaining, self._poll_seconds))
        finally:
            self._waiters[request_id].discard(event)
            if not self._waiters[request_id]:
                del self._waiters[request_id]

    async def answer(self, request_id: str, response: str) -> tuple[Request | None, bool]:
        """Store an answer. Returns the request, and whether a waiting task takes it from here.

        The request is None when the answer is not the first one, or to nothing we asked. The
        waiting task may be another gateway's.
        """
        request = await asyncio.to_thread(self._requests.answer, request_id, response)
        is_awaited = self._wake_waiters(request_id)
        if request is not None and (request.awaited_until or 0.0) > time.time():
            is_awaited = True
        self._trace(request)
        return request, is_awaited

    async def act_on_answer(self, request_id: str, seconds: float) -> Request | None:
        """Wait for an answer on which the caller acts; all gateways know that it does.

        When this process dies meanwhile, the answer is found by ``abandoned``.
        """
        until = time.time() + seconds
        await asyncio.to_thread(self._requests.await_answer, request_id, until)
        request = await self.wait_for_answer(request_id, seconds)
        if request is not None:
            await self.acted_on(request)
        return request

    async def abandoned(self) -> list[Request]:
        """Return the answered requests on which nobody acted who said so; see ``acted_on``.

        Each comes again after a while, here or in another gateway, until somebody has acted.
        """
        now = time.time()
        return await asyncio.to_thread(
            self._requests.take_abandoned,
            now - ABANDONED_AFTER_SECONDS,
            now + _SETTLED_WITHIN_SECONDS,
        )

    async def acted_on(self, request: Request) -> None:
        """Note that somebody has acted on an answer."""
        await asyncio.to_thread(self._requests.await_answer, request.request_id, None)

    async def launches_in_wait(self) -> list[Request]:
        """Return the launches that no agent has taken for a while; each one once."""
        since = time.time() - WAIT_TOLD_AFTER_SECONDS
        launch = DagsterCloudApi.LAUNCH_RUN.name
        return await asyncio.to_thread(self._requests.take_in_wait, launch, since)

    async def withdraw(self, request_id: str) -> bool:
        """Take a request back, and tell whether no agent had taken it."""
        withdrawn = await asyncio.to_thread(self._requests.withdraw, request_id)
        if withdrawn:
            self._wake_waiters(request_id)
            if self._tracer is not SILENT:
                self._trace(await asyncio.to_thread(self._requests.get, request_id))
        return withdrawn

    def _trace(self, request: Request | None) -> None:
        if request is not None and self._tracer is not SILENT:
            for span in request_spans(request):
                self._tracer.add(span)

    def _wake_waiters(self, request_id: str) -> bool:
        waiters = self._waiters.get(request_id, set())
        for event in waiters:
            event.set()
        return bool(waiters)

    async def open_request(
        self, api: DagsterCloudApi, *, deployment: str, run_id: str | None = None
    ) -> Request | None:
        """Return the unanswered request of this kind for a run."""
        found = await asyncio.to_thread(
            self._requests.open_requests, api.name, run_id=run_id, deployment=deployment
        )
        return found[0] if found else None

    async def last_launch(self, run_id: str, *, deployment: str) -> Request | None:
        """Return the last launch of a run, for a week after its answer."""
        return await asyncio.to_thread(self._requests.last_launch, run_id, deployment=deployment)

    async def check_workspace(
        self, deployment: str, queues: Collection[str | None], *, is_branch: bool = False
    ) -> None:
        """Ask the agents of these queues to look at the deployment's locations.

        One request that no agent has taken yet is enough: whoever takes it sees what is there then.
        """
        for queue in queues:
            ask = Ask(
                api=DagsterCloudApi.CHECK_FOR_WORKSPACE_UPDATES, args=None, deployment=deployment,
                is_branch=is_branch, agent_queue=queue,
            )  # fmt: skip
            await asyncio.to_thread(self._requests.add_unless_waiting, new_request(ask))
        self._enqueued.call()

    async def share_presence(self) -> None:
        """Tell the other gateways which agents were here, and hear which were there."""
        if self._sightings is None:
            return
        now = time.time()
        untold = {owner: now - age for owner, age in self._presence.take_untold().items()}
        await asyncio.to_thread(self._sightings.record, untold)
        seen = await asyncio.to_thread(self._sightings.all)
        self._presence.hear({owner: time.time() - when for owner, when in seen.items()})

    async def recover_leases(self) -> None:
        """Hand out again what its agent will not answer.

        An agent that stopped beating has lost its leases. An agent that names itself also gets
        again what it has not answered for a while: the response that carried it may have been lost
        on the way, and such an agent knows a request that it has already taken.
        """
        leased = await asyncio.to_thread(self._requests.leased)
        lost = [request for request in leased if self._is_lost(request)]
        if lost:
            await asyncio.to_thread(self._requests.hand_back, lost)
            self._enqueued.call()

    def _is_lost(self, request: Request) -> bool:
        owner = request.lease_owner or ""
        if not self._presence.is_alive(owner):
            return True
        if not self._presence.names_itself(owner):
            return False
        patience = REDELIVER_AFTER_SECONDS * min(2**request.hand_outs, 64) / 2
        return bool(time.time() - (request.leased_at or 0.0) > patience)

    async def sweep(self) -> None:
        await asyncio.to_thread(self._requests.sweep)
        if self._sightings is not None:
            await asyncio.to_thread(self._sightings.forget_old)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def new_request(ask: Ask) -> Request:
    """Build the row and its body, a DagsterCloudApiRequest."""
    now = time.time()
    request_id = str(uuid.uuid4())
    expires_at = now + ask.timeout_seconds
    body = DagsterCloudApiRequest(
        request_id=request_id, request_api=ask.api, request_args=ask.args,
        deployment_name=ask.deployment, expire_at=expires_at, is_branch_deployment=ask.is_branch,
    )  # fmt: skip
    return Request(
        request_id=request_id, deployment=ask.deployment, is_branch=ask.is_branch,
        api=ask.api.name, body=serialize_value(body), agent_queue=ask.agent_queue,
        run_id=ask.run_id, created_at=now,
        expires_at=None if ask.api.name in DURABLE_APIS else expires_at,
    )  # fmt: skip
