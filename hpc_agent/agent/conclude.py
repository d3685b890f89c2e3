"""The conclude loop: the last word on every job that is over, exactly once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.runs import run_log
from hpc_agent.runs.attempts import Attempts, Successor
from hpc_agent.runs.conclusion import Verdict, failure_message, judge
from hpc_agent.runs.recovery import NoMore
from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job, JobKind

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
_RETRY_SECONDS = 2.0


class ConcludeLoop:
    """Closes runs that their workers left open, and tells the fleet of servers that ended.

    ``spooled`` says whether the relay still holds events of a run: until they are delivered, the
    control plane cannot know how the run ended. ``revoke`` makes the relay forget what it believes
    of a job's token: the job of an earlier attempt may write nothing more.
    """

    def __init__(
        self,
        context: Context,
        fleet: Fleet,
        *,
        spooled: Callable[[str], bool],
        revoke: Callable[[str], None],
    ) -> None:
        self._context = context
        self._fleet = fleet
        self._spooled = spooled
        self._revoke = revoke
        self._attempts = Attempts(context)

    async def step(self) -> float:
        """Conclude what can be concluded."""
        waiting = False
        for job in await self._context.store.run(jobs.to_conclude):
            if job.kind is JobKind.CODE_SERVER:
                await self._fleet.job_over(job)
                await self._close(job, Verdict.NOTHING, NoMore())
                self._context.bells.workspace.ring()
            elif job.kind is JobKind.PACK:
                await self._close(job, Verdict.NOTHING, NoMore())
            elif job.run_id is not None and self._spooled(job.run_id):
                waiting = True
            else:
                await self._conclude_run(job)
        return _RETRY_SECONDS if waiting else _IDLE_SECONDS

    async def _conclude_run(self, job: Job) -> None:
        status = await agent_calls.run_status(
            self._context.api, str(job.run_id), deployment=job.deployment
        )
        verdict = judge(job, status)
        no_more = NoMore()
        if verdict is Verdict.FAILED:
            successor = await self._attempts.successor_of(job)
            if isinstance(successor, Successor):
                await self._hand_over(job, successor)
                return
            no_more = successor
            log.warning("run %s: %s", job.run_id, failure_message(job, no_more.reason))
        await self._close(job, verdict, no_more)
        self._context.bells.report.ring()

    async def _hand_over(self, job: Job, successor: Successor) -> None:
        """Conclude a job whose run goes on in another, unless the run was terminated just now."""
        now = self._context.clock()

        def write(db: Database) -> bool:
            if jobs.get(db, job.key).terminate_at is not None:
                return False
            self._attempts.begin(db, job, successor, now=now)
            jobs.change(db, job.key, now=now, source="agent", concluded_at=now)
            return True

        if await self._context.store.run(write):
            self._revoke(job.key)
            self._context.bells.submit.ring()
            self._context.bells.measure.ring()
        else:
            await self._close(job, Verdict.CANCELED, NoMore())
        self._context.bells.report.ring()

    async def _close(self, job: Job, verdict: Verdict, no_more: NoMore) -> None:
        now = self._context.clock()

        def write(db: Database) -> None:
            if verdict is Verdict.FAILED:
                run_log.failed(db, job, failure_message(job, no_more.reason), now=now)
            elif verdict is Verdict.CANCELED:
                run_log.canceled(db, job, "Run canceled.", now=now)
            jobs.change(db, job.key, now=now, source="agent", concluded_at=now)

        await self._context.store.run(write)
        self._context.bells.measure.ring()
