"""The pools loop: allocations come and go with what waits, and nothing waits for them for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.errors import ConfigError, SchedulerError, TemplateError
from hpc_agent.isolation import for_each
from hpc_agent.pools import sizing
from hpc_agent.pools.allocation import (
    Offer,
    intent_of,
    is_outdated,
    let_go,
    made_of,
    offer_of,
    plan_allocation,
)
from hpc_agent.pools.desk import Desk
from hpc_agent.pools.patience import Patience
from hpc_agent.pools.sizing import Decision
from hpc_agent.pools.standing import Scene, look
from hpc_agent.store import pools, workers
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement, Worker
from hpc_agent.workers import evidence, node_evidence, run_log
from hpc_agent.workers.change import NOTHING, Change

log = logging.getLogger(__name__)

_BUSY_SECONDS = 5.0
_IDLE_SECONDS = 30.0
_OUTDATED = "its options, slots or environment have changed since it was started"


class SupervisorsLoop:
    """Wakes the supervisors that wait for work: whatever else pools need, no run waits for that."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def step(self) -> float:
        """Let all of them look again."""
        self._desk.ring()
        return _IDLE_SECONDS


class PoolsLoop:
    """Sizes the pools, and takes care of what waits in them; ``desk`` gives the work out."""

    def __init__(self, context: Context, desk: Desk) -> None:
        self._context = context
        self._desk = desk
        self._patience = Patience()
        self._is_recalled = False

    async def step(self) -> float:
        """Look at each pool."""
        if not self._is_recalled:
            await self._recall()
        alive: list[str] = []

        async def take_care(name: str) -> None:
            alive.extend(await self._take_care(name))

        configured = self._context.config.pools
        await for_each("pool", list(configured), take_care, name=str)
        for name in await self._context.store.run(pools.names_waited_for):
            if name not in configured:
                await self._dissolve(name)
                alive += await self._keys_of(name)
        self._desk.forget_others(alive)
        await for_each("pool member", self._desk.gone(), self._gone, name=str)
        return _BUSY_SECONDS if alive else _IDLE_SECONDS

    async def _keys_of(self, name: str) -> list[str]:
        found = await self._context.store.run(lambda db: pools.allocations(db, name))
        return [each.key for each in found]

    async def _dissolve(self, name: str) -> None:
        """Nothing waits for a pool that agent.yaml has no more; what runs in it runs to its end."""
        now, changes = self._context.clock(), self._context.changes

        def write(db: Database) -> list[str]:
            for each in pools.allocations(db, name):
                if not each.is_leaving and each.terminate_at is None:
                    let_go(db, changes, each.key, now=now, source="agent")
            return [each.key for each in pools.waiting(db, name)]

        for key in await self._context.store.run(write):
            await self._fall_back(key, f"agent.yaml has no pool {name} any more")

    async def _recall(self) -> None:
        """At the agent's start no pool is stopped: whoever mends agent.yaml starts it again."""
        now = self._context.clock()

        def write(db: Database) -> None:
            for name in self._context.config.pools:
                pools.resume(db, name, now=now)

        await self._context.store.run(write)
        self._is_recalled = True

    async def _take_care(self, name: str) -> list[str]:
        """Look at a pool and do what it needs; return the keys of its allocations."""
        offer, now = offer_of(self._context.config, name), self._context.clock()
        made = await asyncio.to_thread(made_of, self._context.config, name)
        await self._renew(name, made)
        scene = await self._context.store.run(lambda db: look(db, offer, self._desk.heard, now))
        self._patience.look(name, (*scene.waiting, *scene.assigned), now)
        await self._carry_out(name, sizing.decide(offer.pool, scene.standing), made)
        await self._take_back(offer, scene)
        for worker in scene.waiting:
            if reason := self._patience.end_of(offer, scene, worker, now):
                await self._fall_back(worker.key, reason)
        return [each.key for each in scene.allocations]

    async def _renew(self, name: str, made: str) -> None:
        """Let those go that were started with what is in agent.yaml, or an archive, no more."""
        changes, now = self._context.changes, self._context.clock()

        def write(db: Database) -> list[str]:
            outdated = [each.key for each in pools.allocations(db, name) if is_outdated(each, made)]
            for key in outdated:
                let_go(db, changes, key, now=now, source="agent")
                pools.note(db, name, f"{key} takes nothing more: {_OUTDATED}", now=now)
            return outdated

        for key in await self._context.store.run(write):
            log.info("pool %s: %s takes nothing more: %s", name, key, _OUTDATED)

    async def _carry_out(self, name: str, decision: Decision, made: str) -> None:
        if not decision:
            return
        context, now = self._context, self._context.clock()

        def write(db: Database) -> None:
            if decision.stop is not None:
                pools.stop(db, name, decision.stop, now=now)
            for key in (*decision.leave, *decision.withdraw):
                let_go(db, context.changes, key, now=now, source="agent")
            for words in decision.words:
                pools.note(db, name, words, now=now)

        for words in decision.words:
            log.info("pool %s: %s", name, words)
        await context.store.run(write)
        for _ in range(decision.start):
            await self._start(name, made)

    async def _start(self, name: str, made: str) -> None:
        context = self._context
        try:
            facts = await context.partitions.facts() if context.partitions is not None else None
            plan = plan_allocation(context.config, name, facts)
            await context.preparation.prepare(plan)
        except SchedulerError as error:
            log.info("pool %s: no allocation for now: %s", name, error)
            return
        except (ConfigError, TemplateError) as error:
            await self._stop(name, str(error))
            return
        worker = intent_of(name, plan, made, now=context.clock())
        await context.store.run(lambda db: workers.insert(db, worker))

    async def _stop(self, name: str, reason: str) -> None:
        now = self._context.clock()

        def write(db: Database) -> None:
            pools.stop(db, name, reason, now=now)
            pools.note(db, name, f"stopped: {reason}", now=now)

        await self._context.store.run(write)
        log.warning("pool %s is stopped: %s", name, reason)

    async def _take_back(self, offer: Offer, scene: Scene) -> None:
        """Give what has not begun in time to another slot, unless its claim says that it has."""
        now = self._context.clock()
        late = {
            each.key: self._patience.end_of(offer, scene, each, now)
            for each in scene.assigned
            if now - (each.submitting_since or now) > offer.pool.claim_seconds
        }

        async def give_back(key: str) -> None:
            await self._give_back(key, late[key])

        await for_each("pool member", list(late), give_back, name=str)

    async def _give_back(self, key: str, why_alone: str) -> None:
        """Let it wait again; or get a job at once: a supervisor that waits would be faster."""
        context, now = self._context, self._context.clock()
        claim = await asyncio.to_thread(context.preparation.work.claim, key)

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            if worker.is_claimed or worker.pack_key is None or worker.phase is not Phase.QUEUED:
                return NOTHING
            if claim is not None:
                return node_evidence.observe_claim(worker, claim.slurm_job_id)
            words = f"it has not begun in allocation {worker.pack_key} in time"
            return evidence.assigned_to_none(worker, now, words)

        def write(db: Database) -> None:
            context.changes.within(db, key, observe, source="agent")
            if why_alone:
                self._set_apart(db, key, why_alone)

        await context.store.run(write)

    async def _fall_back(self, key: str, reason: str) -> None:
        """Give a job of its own to what has waited too long, or fits into no allocation."""
        await self._context.store.run(lambda db: self._set_apart(db, key, reason))

    def _set_apart(self, db: Database, key: str, reason: str) -> None:
        context = self._context

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            if worker.phase is not Phase.INTENT or worker.placement is not Placement.POOL:
                return NOTHING
            # `not_before` stays as it is, and is named so that the submit loop is woken.
            changes = {"placement": Placement.JOB, "pool": None, "waits_for": ""}
            return Change(worker={**changes, "not_before": worker.not_before})

        worker = context.changes.within(db, key, observe, source="agent")
        if worker.placement is Placement.JOB:
            words = f"It gets a job of its own: {reason}."
            run_log.say_line(db, worker, words, now=context.wall())

    async def _gone(self, key: str) -> None:
        """A supervisor has had no process of a member for a while: what has it left behind?"""
        context, now = self._context, self._context.clock()
        record = await asyncio.to_thread(context.preparation.work.exit_record, key)

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            told = NOTHING if record is None else node_evidence.observe_exit(worker, record, now)
            return evidence.observe_gone(worker, record, now) if told is NOTHING else told

        await context.changes.apply(key, observe, source="supervisor")
