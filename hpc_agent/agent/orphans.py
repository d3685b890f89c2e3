"""The orphans loop: jobs whose runs are over in the control plane, or deleted, are ended.

Whoever marks a run as canceled while its job waits in the queue (the UI offers nothing else for a
run that is starting) or lets a monitor fail it, sends no request about it. And an agent that drains
takes none: it asks for the runs that are to end.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.isolation import for_each
from hpc_agent.runs.termination import TERMINATION_REQUESTED
from hpc_agent.store import tracking, workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.tracking import LiveRun
from hpc_agent.store.workers import Worker
from hpc_agent.workers import intents, run_log

log = logging.getLogger(__name__)

_CANCELING = "CANCELING"
_INTERVAL_SECONDS = 10.0
_RUNS_AT_ONCE = 200
# Far longer than any grace period.
_FORGET_SECONDS = 24 * 3600.0
# A run that was deleted stays so; an answer that lacks one may be wrong once.
_GONE_SECONDS = 30.0

# A run of ours, and how it stands in the control plane.
_Found = tuple[LiveRun, str]
_Work = Callable[[_Found], Awaitable[None]]


class OrphansLoop:
    """Asks for the runs of live jobs, so many at once, and ends the jobs of finished ones."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last_asked = ""
        self._seen_over: dict[str, float] = {}
        self._seen_gone: dict[str, float] = {}
        self._without_runs: set[str] = set()

    async def step(self) -> float:
        """Look at the next runs."""
        context = self._context
        asked = await context.store.run(
            lambda db: tracking.runs_to_ask_for(db, self._last_asked, _RUNS_AT_ONCE)
        )
        if not asked:
            return _INTERVAL_SECONDS
        self._last_asked = asked[-1].run_id
        self._forget(context.clock())
        # Grouped by deployment, since runs live in one.
        deployments = sorted({run.deployment for run in asked})

        async def ask(deployment: str) -> None:
            mine = {each.run_id: each for each in asked if each.deployment == deployment}
            found = await agent_calls.runs_in(
                context.api, list(mine), self._statuses(), deployment=deployment
            )
            known = [(mine[run_id], status) for run_id, status in found.items() if run_id in mine]
            await self._for_each([each for each in known if each[1] == _CANCELING], self._terminate)
            over = [each for each in known if each[1] != _CANCELING]
            ending = [each for each in over if not self._may_end_by_itself(each[0])]
            ending += [(mine[run_id], "deleted") for run_id in await self._gone(deployment, mine)]
            await self._for_each(ending, self._end)

        await for_each("orphans", deployments, ask, name=str)
        return _INTERVAL_SECONDS

    async def _for_each(self, some: Sequence[_Found], work: _Work) -> None:
        await for_each(
            "orphans",
            some,
            work,
            name=lambda each: each[0].key,
            fields=lambda each: each[0].log_fields,
        )

    def _statuses(self) -> Sequence[str]:
        is_draining = self._context.drain.is_on
        return (*agent_calls.FINISHED_STATUSES, *[_CANCELING] * is_draining)

    async def _gone(self, deployment: str, asked: Mapping[str, LiveRun]) -> list[str]:
        """Return the runs that the control plane has not had for a while, and does not have now.

        Where it has none of several, it is not the control plane that has launched them: nothing is
        ended for that until it has one of them again.
        """
        api = self._context.api
        there = await agent_calls.existing_runs(api, list(asked), deployment=deployment)
        missing = [run_id for run_id in asked if run_id not in there]
        for run_id in there:
            self._seen_gone.pop(run_id, None)
        if there:
            self._without_runs.discard(deployment)
        elif len(missing) > 1 and deployment not in self._without_runs:
            self._without_runs.add(deployment)
            log.warning("%s: the control plane has none of %d runs", deployment, len(missing))
        if deployment in self._without_runs:
            return []
        now = self._context.clock()
        gone = []
        for run_id in missing:
            is_due = now - self._seen_gone.setdefault(run_id, now) >= _GONE_SECONDS
            if is_due and await agent_calls.run_status(api, run_id, deployment=deployment) is None:
                gone.append(run_id)
        return gone

    def _forget(self, now: float) -> None:
        for seen in (self._seen_over, self._seen_gone):
            for run_id in [each for each, at in seen.items() if now - at >= _FORGET_SECONDS]:
                del seen[run_id]

    def _may_end_by_itself(self, run: LiveRun) -> bool:
        """A run worker that has just closed its run is about to go."""
        if run.phase is not Phase.RUNNING:
            return False
        now = self._context.clock()
        first_seen = self._seen_over.setdefault(run.run_id, now)
        return now - first_seen < self._context.config.runs.grace_seconds

    async def _terminate(self, found: _Found) -> None:
        """Do what the request would that waits in the control plane meanwhile."""
        run, _ = found
        await self._context.termination.end(
            run.key, TERMINATION_REQUESTED, is_canceling=True, source="control plane"
        )
        log.info("%s: its run is to end, and so is its job", run.key)

    async def _end(self, over: _Found) -> None:
        run, status = over
        context, now = self._context, self._context.clock()

        def write(db: Database) -> Worker:
            worker = workers.get(db, run.key)
            if worker.phase is Phase.QUEUED:
                line = f"The run is {status}; cancelling job {worker.job_id}."
                run_log.say_line(db, worker, line, now=context.wall())
            return context.changes.within(
                db,
                worker.key,
                lambda worker, _: intents.withdraw(worker, now, terminate_at=now),
                source="control plane",
            )

        worker = await context.store.run(write)
        log.info("%s: its run is %s, so its job %s is ended", worker.key, status, worker.job_id)
