"""The conclude loop: the last word on every worker that is over, exactly once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.agent.traces import worker_spans
from hpc_agent.code_servers.life import ServerLife
from hpc_agent.dagster_plus import agent_calls, responses
from hpc_agent.errors import ControlPlaneUnavailableError
from hpc_agent.isolation import for_each
from hpc_agent.runs.attempts import Attempts, Successor
from hpc_agent.runs.last_word import LastWord, RunEnd, failure_message, last_word, needs_status
from hpc_agent.runs.recovery import NoMore
from hpc_agent.store import inbox, steps, workers
from hpc_agent.store.phases import FINAL
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.traces.tracer import SILENT
from hpc_agent.workers import answers, run_log

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
_RETRY_SECONDS = 2.0


class ConcludeLoop:
    """Closes runs that their workers left open, and tells of code servers that ended.

    ``spooled`` says whether the relay still holds events of a run: until they are delivered, the
    control plane cannot know how the run ended. ``revoke`` makes the relay forget what it believes
    of a worker's token: what is over may write nothing more.
    """

    def __init__(
        self,
        context: Context,
        life: ServerLife,
        *,
        spooled: Callable[[str], bool],
        revoke: Callable[[str], None],
    ) -> None:
        self._context = context
        self._life = life
        self._spooled = spooled
        self._revoke = revoke
        self._ending = context.step_ending
        self._attempts = {
            kind: Attempts(
                planner=planner,
                preparation=context.preparation,
                partitions=context.partitions,
                pools=context.config.pools,
                clock=context.clock,
            )
            for kind, planner in context.planners.items()
        }

    async def step(self) -> float:
        """Conclude what can be concluded; the rest is tried again."""
        store = self._context.store
        over = await store.run(lambda db: workers.rows_in_phase(db, *FINAL))
        has_failed = False
        # While the control plane is away thousands may wait for their last word.
        async for some in store.in_parts(over, workers.with_rows):
            failed = await for_each(
                "conclude",
                some,
                self._conclude,
                name=lambda each: each.key,
                fields=lambda each: each.log_fields,
            )
            has_failed = has_failed or bool(failed)
        return _RETRY_SECONDS if has_failed else _IDLE_SECONDS

    async def _conclude(self, worker: Worker) -> None:
        self._revoke(worker.key)
        if worker.kind is WorkerKind.RUN_WORKER:
            await self._conclude_run(worker)
            return
        if worker.kind is WorkerKind.STEP:
            await self._conclude_step(worker)
            return
        if worker.kind is WorkerKind.CODE_SERVER:
            await self._life.worker_over(worker)
            await self._withdraw_order(worker)
        await self._close(worker, LastWord(run_end=RunEnd.NOTHING))

    async def _withdraw_order(self, worker: Worker) -> None:
        """Take back the order of a server that has ended by itself in its pack."""
        if worker.pack_key is not None:
            work = self._context.preparation.work
            await asyncio.to_thread(work.withdraw_order, worker.pack_key, worker.key)

    async def _conclude_run(self, worker: Worker) -> None:
        run_id = str(worker.run_id)
        is_request_open = await self._context.store.run(
            lambda db: inbox.is_open(db, worker.request_id)
        )
        status: str | None = None
        if needs_status(worker, is_request_open=is_request_open):
            if self._spooled(run_id):
                raise ControlPlaneUnavailableError("events of its run wait for the control plane")
            status = await agent_calls.run_status(
                self._context.api, run_id, deployment=worker.deployment
            )
        word = last_word(worker, is_request_open=is_request_open, run_status=status)
        if word.run_end is RunEnd.FAILED:
            successor = await self._attempts[worker.kind].successor_of(worker)
            if isinstance(successor, Successor):
                await self._hand_over(worker, successor)
                return
            word = _with_reason(word, worker, successor)
            log.warning("run %s: %s", run_id, word.message)
        await self._close(worker, word)

    async def _conclude_step(self, worker: Worker) -> None:
        """A step tells its own end by its events, and its run worker follows its job."""
        successor = await self._attempts[worker.kind].successor_of(worker)
        if isinstance(successor, Successor):
            await self._hand_over(worker, successor)
            return
        if successor.reason:
            wall = self._context.wall()
            words = f"It is not begun again: {successor.reason}."
            await self._context.store.run(lambda db: run_log.say_line(db, worker, words, now=wall))
        await self._close(worker, LastWord(run_end=RunEnd.NOTHING))

    async def _hand_over(self, worker: Worker, successor: Successor) -> None:
        """Conclude a worker whose run goes on in another, unless it was terminated just now."""
        now, wall = self._context.clock(), self._context.wall()

        def write(db: Database) -> bool:
            if workers.get(db, worker.key).terminate_at is not None:
                return False
            if worker.step is not None and not steps.may_ask(db, str(worker.run_id)):
                return False
            answers.give(db, worker.request_id, responses.success(), now=wall)
            self._attempts[worker.kind].begin(db, worker, successor, now=wall)
            steps.hand_over_request(db, worker.key, successor.worker.key)
            workers.change(db, worker.key, now=now, source="agent", concluded_at=now)
            return True

        if await self._context.store.run(write):
            self._revoke(worker.key)
            await self._trace(worker)
        elif worker.kind is WorkerKind.STEP:
            await self._close(worker, LastWord(run_end=RunEnd.NOTHING))
        else:
            await self._close(worker, LastWord(run_end=RunEnd.CANCELED, message="Run canceled."))

    async def _close(self, worker: Worker, word: LastWord) -> None:
        noted: list[Worker] = []
        if worker.kind is WorkerKind.RUN_WORKER:
            noted = await self._ending.note_all(str(worker.run_id))
        now, wall = self._context.clock(), self._context.wall()

        def write(db: Database) -> list[Worker]:
            answer = (
                responses.success() if word.failure is None else responses.failure(word.failure)
            )
            answers.give(db, worker.request_id, answer, now=wall)
            if word.run_end is RunEnd.FAILED:
                run_log.failed(db, worker, word.message, now=wall)
            elif word.run_end is RunEnd.CANCELED:
                run_log.canceled(db, worker, word.message, now=wall)
            workers.change(db, worker.key, now=now, source="agent", concluded_at=now)
            if worker.kind is WorkerKind.STEP:
                steps.forget_request(db, worker.key)
                # Its process was killed, or it would have ended them: a retry begins its own.
                return self._ending.note(db, steps.asked_by(db, worker))
            if worker.kind is not WorkerKind.RUN_WORKER:
                return []
            return self._ending.note_rest(db, str(worker.run_id))

        noted += await self._context.store.run(write)
        self._ending.signal(noted)
        await self._trace(worker)

    async def _trace(self, worker: Worker) -> None:
        context = self._context
        if context.tracer is SILENT:
            return
        history = await context.store.run(lambda db: workers.history(db, worker.key))
        now = context.clock()
        for span in worker_spans(worker, history, now=now, ahead=context.wall() - now):
            context.tracer.add(span)


def _with_reason(word: LastWord, worker: Worker, no_more: NoMore) -> LastWord:
    return LastWord(
        run_end=word.run_end,
        failure=word.failure,
        message=failure_message(worker, no_more.reason),
    )
