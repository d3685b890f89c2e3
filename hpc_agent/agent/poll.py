"""The poll loop: takes requests and writes them down before anything else happens to them.

What was handed out is not handed out again. So what cannot be written (a full disk, a locked
database) is kept here and written before the next poll, and one request that cannot be read or
written costs none of the others.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import agent_calls, responses
from hpc_agent.dagster_plus.agent_calls import Popped, PoppedRequest, UnreadableRequest
from hpc_agent.errors import HpcAgentError, StoreError
from hpc_agent.store.inbox import Request
from hpc_agent.workers import answers

log = logging.getLogger(__name__)

# The stock agent's interval; kept while work flows and nobody holds the poll open for us.
_BUSY_SECONDS = 0.5
_IDLE_SECONDS = 2.0
_BUSY_FOR_SECONDS = 60.0
# An answer to an empty long poll that comes sooner than this was no long poll.
_HELD_SECONDS = 1.0
# Requests have deadlines: what waits for the disk is tried again soon.
_UNWRITTEN_SECONDS = 2.0
# What SQLite says of a value, not of the database.
_FAULTS_OF_A_REQUEST = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError)


class PollLoop:
    """Polls; ``connected`` says whether the last poll worked."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last_work = 0.0
        self._unwritten = Popped([], [])
        self._store_says = ""
        # Whether something may have been handed out that was never written down.
        self._behind = True
        self.connected = False

    async def step(self) -> float:
        """Take what there is and write it down, unless the agent drains; wake the serve loop."""
        if self._unwritten and not await self._write_down():
            return _UNWRITTEN_SECONDS
        context = self._context
        if context.drain.is_on:
            return _IDLE_SECONDS
        started = context.clock()
        anew, self._behind = self._behind, True
        try:
            self._unwritten = await self._pop(anew=anew)
        except HpcAgentError:
            self.connected = False
            raise
        now = context.clock()
        has_work = bool(self._unwritten)
        if has_work:
            self._last_work = now
            if not await self._write_down():
                return _UNWRITTEN_SECONDS
        self._behind = False
        if not self.connected:
            self._greet()
            return 0.0
        return 0.0 if has_work else self._wait_after_nothing(now, held=now - started)

    async def _pop(self, *, anew: bool) -> Popped:
        context, settings = self._context, self._context.config.control_plane
        return await agent_calls.pop_requests(
            context.api,
            settings.deployments,
            branch_deployments=settings.branch_deployments,
            queues=context.config.agent_queues.names,
            wait_seconds=self._wait_seconds(),
            anew=anew,
        )

    async def _write_down(self) -> bool:
        """Write what was popped; False while that cannot be done, then nothing more is taken."""
        popped = self._unwritten
        try:
            try:
                await self._write(popped.requests, popped.unreadable)
            except (StoreError, ValueError, OverflowError):
                await self._write_each(popped)
        except StoreError as error:
            self._note_store(str(error))
            return False
        self._unwritten = Popped([], [])
        self._note_store("")
        return True

    async def _write_each(self, popped: Popped) -> None:
        """Write one request after the other; one that cannot be written is answered instead."""
        unreadable = list(popped.unreadable)
        for request in popped.requests:
            try:
                await self._write([request], [])
            except (StoreError, ValueError, OverflowError) as error:
                if isinstance(error, StoreError) and not _is_fault_of_request(error):
                    raise
                unreadable.append(_as_unreadable(request, error))
        for each in unreadable:
            try:
                await self._write([], [each])
            except (StoreError, ValueError, OverflowError) as error:
                if isinstance(error, StoreError) and not _is_fault_of_request(error):
                    raise
                log.exception("request %s cannot even be refused", each.request_id)

    async def _write(
        self, requests: Sequence[PoppedRequest], unreadable: Sequence[UnreadableRequest]
    ) -> None:
        now = self._context.wall()
        received = [_request(item, now) for item in requests]
        deployment = next(iter(self._context.config.control_plane.deployments), "")

        def write(db: Database) -> None:
            answers.take(db, received)
            for each in unreadable:
                _refuse(db, each, deployment=deployment, now=now)

        await self._context.store.run(write)
        for each in unreadable:
            log.error(
                "request %s (%s) cannot be read: %s",
                each.request_id or "without an id",
                each.request_api or "without a name",
                each.reason,
            )

    def _note_store(self, words: str) -> None:
        if words and words != self._store_says:
            count = len(self._unwritten.requests) + len(self._unwritten.unreadable)
            log.error(
                "%d requests that were taken wait in memory until they can be written down, and no "
                "more are taken meanwhile: %s",
                count,
                words,
            )
        elif self._store_says and not words:
            log.info("the requests that waited in memory are written down")
        self._store_says = words

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


def _as_unreadable(request: PoppedRequest, error: Exception) -> UnreadableRequest:
    return UnreadableRequest(
        request_id=request.request_id,
        request_api=request.request_api,
        deployment_name=request.deployment_name,
        reason=str(error),
    )


def _refuse(db: Database, request: UnreadableRequest, *, deployment: str, now: float) -> None:
    """Answer a request that cannot be read, in the words that say why."""
    if request.request_id is None:
        return
    named = request.deployment_name or deployment
    answers.take(db, [Request(request.request_id, request.request_api, "", named, False, now)])
    words = f"hpc-agent cannot read this request: {request.reason}"
    answers.give(db, request.request_id, responses.failure(words), now=now)


def _is_fault_of_request(error: StoreError) -> bool:
    return isinstance(error.__cause__, _FAULTS_OF_A_REQUEST)
