"""The commands loop: what operators ask of a running agent, and the pauses that they make."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from sqlite_utils import Database

from hpc_agent.agent.adopt import adopt
from hpc_agent.agent.context import Context
from hpc_agent.agent.purge import collect_garbage
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.doorbell import UNHEARD_SECONDS
from hpc_agent.errors import ControlPlaneError, HpcAgentError, UsageError
from hpc_agent.hints import did_you_mean
from hpc_agent.jobs.wording import describe
from hpc_agent.pools.allocation import let_go
from hpc_agent.store import code_servers, commands, pauses, pools, workers
from hpc_agent.store.commands import Command, CommandKind
from hpc_agent.store.draining import left_to_finish
from hpc_agent.store.jobs import Job
from hpc_agent.store.pauses import Pause
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers import intents
from hpc_agent.workers.change import NOTHING, Change

log = logging.getLogger(__name__)

# For the status of a run: the control plane may be away, and the operator waits.
_STATUS_SECONDS = 5.0
# What is held back or finished meanwhile is no change that a bell tells of.
_HELD_BACK_SECONDS = 2.0


class CommandsLoop:
    """Carries out commands, keeps paused runs informed, and ends an agent that has drained."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def step(self) -> float:
        """Carry out what is asked for, one command after the other."""
        store, wall = self._context.store, self._context.wall
        while (command := await store.run(lambda db: commands.begin(db, wall()))) is not None:
            await self._carry_out(command)
        is_paused = await self._tell_paused()
        await self._stop_when_drained()
        is_holding_back = is_paused or self._context.drain.is_on
        return _HELD_BACK_SECONDS if is_holding_back else UNHEARD_SECONDS

    async def _carry_out(self, command: Command) -> None:
        store = self._context.store
        try:
            outcome, failed = await self._outcome(command), False
        except HpcAgentError as error:
            outcome, failed = str(error), True
        except Exception as error:
            log.exception("%s: unexpected error", command.kind.value)
            outcome, failed = f"unexpected error, see the agent's log: {error!r}", True
        await store.run(lambda db: commands.conclude(db, command.id, outcome, failed=failed))
        log.info("%s asked for by an operator: %s", command.kind.value, outcome)

    async def _outcome(self, command: Command) -> str:
        store, subject = self._context.store, command.subject
        match command.kind:
            case CommandKind.CANCEL:
                outcome = await self._cancel(str(subject["key"]))
            case CommandKind.PAUSE:
                outcome = await store.run(lambda db: self._pause(db, **subject))
            case CommandKind.RESUME:
                outcome = await self._resume(**subject)
            case CommandKind.DRAIN:
                outcome = await store.run(lambda db: self._begin_drain(db, **subject))
            case CommandKind.ACCEPT:
                await store.run(self._context.drain.end)
                outcome = "requests are taken again"
            case CommandKind.GC:
                outcome = await collect_garbage(self._context, **subject)
            case CommandKind.ADOPT:
                outcome = await adopt(self._context, **subject)
            case CommandKind.RESUME_POOL:
                outcome = await self._resume_pool(str(subject["pool"]))
        return outcome

    async def _cancel(self, key: str) -> str:
        worker = await self._context.store.run(lambda db: workers.find(db, key))
        if worker is None:
            raise UsageError(f"there is no job {key!r}")
        if worker.kind is WorkerKind.STEP:
            return await self._cancel_step(worker)
        if worker.kind is WorkerKind.POOL:
            return await self._let_go(worker)
        if worker.kind is not WorkerKind.RUN_WORKER:
            raise UsageError(
                f"{key} is no run: the agent would start another server at once. "
                "`hpc-agent control-plane deploy` replaces one, and taking its location out of "
                "the deployment ends it"
            )
        if worker.phase.is_final:
            return f"run {worker.run_id} has no job that goes on: {describe(worker)}"
        status = await self._status_of(worker)
        is_over = status in agent_calls.FINISHED_STATUSES
        if is_over:
            what = f"run {worker.run_id} is {status}; its job"
            words = f"An operator of the cluster ends the job of the run, which is {status}."
        else:
            what = f"run {worker.run_id}"
            words = "An operator of the cluster ends the run (hpc-agent cancel)."
        ended = await self._context.termination.end(
            key, words, is_canceling=is_over, source="operator"
        )
        return f"{what} is asked to end: {describe(ended)}"

    async def _status_of(self, worker: Worker) -> str | None:
        """Return how a worker's run stands, None where that is not to be had now."""
        try:
            async with asyncio.timeout(_STATUS_SECONDS):
                return await agent_calls.run_status(
                    self._context.api, str(worker.run_id), deployment=worker.deployment
                )
        except (ControlPlaneError, TimeoutError) as error:
            log.warning("how run %s stands is not known: %r", worker.run_id, error)
            return None

    async def _let_go(self, worker: Worker) -> str:
        """An allocation takes nothing more, and ends with its last run; one that waits goes now."""
        key, changes, now = worker.key, self._context.changes, self._context.clock()
        after = await self._context.store.run(
            lambda db: let_go(db, changes, key, now=now, source="operator")
        )
        return f"allocation {key} takes nothing more: {describe(after)}"

    async def _cancel_step(self, worker: Worker) -> str:
        """Its run goes on, and decides what a step means that was ended."""
        ending = self._context.step_ending
        noted = await self._context.store.run(lambda db: ending.note(db, [worker]))
        ending.signal(noted)
        name = f"step {worker.step} of run {worker.run_id}"
        if not noted:
            return f"{name} has no job that goes on: {describe(worker)}"
        return f"{name} is asked to end: {describe(noted[0])}"

    def _pause(self, db: Database, location: str, deployment: str) -> str:
        pause = Pause(location, deployment, self._context.wall())
        if not pauses.begin(db, pause):
            return f"{location} was paused before"
        served = code_servers.locations(db)
        hint = did_you_mean(location, served)
        doubt = "" if location in served else f" (it is not served here{hint})"
        return (
            f"{location} is paused{doubt}: its runs are taken and wait; "
            f"{len(pauses.held_back(db, pause))} do so now"
        )

    async def _resume(self, location: str, deployment: str) -> str:
        def write(db: Database) -> list[str] | None:
            pause = Pause(location, deployment, 0.0)
            waiting = pauses.held_back(db, pause)
            return waiting if pauses.end(db, location, deployment) else None

        waiting = await self._context.store.run(write)
        if waiting is None:
            raise UsageError(f"{location} is not paused (`hpc-agent status` lists what is)")
        bells = self._context.bells
        for bell in (bells.submit, bells.supervisors, bells.pools):
            bell.ring()
        return f"{location} goes on: {len(waiting)} runs are to be submitted"

    async def _resume_pool(self, name: str) -> str:
        context = self._context
        if name not in context.config.pools:
            known = sorted(context.config.pools)
            raise UsageError(f"there is no pool {name!r}{did_you_mean(name, known)}")
        now = context.clock()
        was_stopped = await context.store.run(lambda db: pools.resume(db, name, now=now))
        context.bells.pools.ring()
        return f"pool {name} {'goes on' if was_stopped else 'was not stopped'}"

    def _begin_drain(self, db: Database, *, stop: bool) -> str:
        self._context.drain.begin(db, stops=stop)
        left = left_to_finish(db)
        words = ", ".join(f"{count} {what}" for what, count in left.items())
        then = ", then the agent stops" if stop else ""
        return f"nothing new is taken; to be finished: {words or 'nothing'}{then}"

    async def _tell_paused(self) -> bool:
        """Let the runs that wait for a pause to end say so, those that came in since included.

        False when nothing is paused.
        """
        told: set[str] = set()
        found = await self._context.store.run(pauses.all_of)
        for pause in found:
            held = await self._context.store.run(partial(pauses.held_back, pause=pause))
            # One that two pauses hold back names the older one, and does not change its mind.
            await self._tell([key for key in held if key not in told], _reason(pause))
            told.update(held)
        return bool(found)

    async def _tell(self, keys: Sequence[str], reason: str) -> None:
        now = self._context.clock()

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            if worker.waits_for == reason:
                return NOTHING
            return intents.hold_back(worker, reason, now=now, not_before=worker.not_before)

        await self._context.changes.apply_to_all(keys, observe, source="operator")

    async def _stop_when_drained(self) -> None:
        drain, store = self._context.drain, self._context.store
        if not (drain.is_on and drain.stops):
            return
        if await store.run(left_to_finish):
            return
        log.info("drained: all runs and steps have ended and all is told; stopping")
        await store.run(drain.end)
        self._context.stop.set()


def _reason(pause: Pause) -> str:
    since = datetime.fromtimestamp(pause.since, UTC)
    return (
        f"code location {pause.location} is paused by an operator since {since:%Y-%m-%d %H:%M} UTC"
    )
